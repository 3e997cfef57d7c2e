"""The plan's file in a slide's scratch folder, so that tasks need to carry only its place."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import TypeAdapter

from wsi_minugan.geometry import Box, Frame
from wsi_minugan.outputs.atomic import write_bytes
from wsi_minugan.pipeline.areas import Drawn
from wsi_minugan.pipeline.plan import SlidePlan
from wsi_minugan.pipeline.planning.slide_stain import SlideStain
from wsi_minugan.slides.inputs import SlideInput
from wsi_minugan.slides.reader import SlideInfo
from wsi_minugan.slides.tissue import TissueMask

PLAN_FILE = "plan.npz"
_STAIN: TypeAdapter[SlideStain | None] = TypeAdapter(SlideStain | None)


def save_plan(folder: Path, plan: SlidePlan) -> None:
    """Write a plan into a scratch folder, so that tasks need to carry only its place.

    Parameters
    ----------
    folder : Path
        The scratch folder.
    plan : SlidePlan
        What to write.
    """
    tissue = plan.tissue
    text = TypeAdapter(dict[str, Any]).dump_json(
        {
            "key": plan.key,
            "slide": TypeAdapter(SlideInput).dump_python(plan.slide, mode="json"),
            "info": TypeAdapter(SlideInfo).dump_python(plan.info, mode="json"),
            "frame": TypeAdapter(Frame).dump_python(plan.frame, mode="json"),
            "blocks": TypeAdapter(tuple[Box, ...]).dump_python(plan.blocks, mode="json"),
            "mpp_source": plan.mpp_source,
            "block_px": plan.block_px,
            "stride_px": plan.stride_px,
            "patches_across": plan.patches_across,
            "broken_tiles": plan.broken_tiles,
            "precision": plan.precision,
            "stain": _STAIN.dump_python(plan.stain, mode="json"),
            "px_per_cell": tissue.px_per_cell,
            "own_tissue": plan.drawn.own_tissue,
            "regions": {name: shapely.to_wkb(r, hex=True) for name, r in plan.drawn.regions.items()},
            "allowed": None if plan.drawn.allowed is None else shapely.to_wkb(plan.drawn.allowed, hex=True),
        }
    )
    data = io.BytesIO()
    masks: dict[str, Any] = {"stained": tissue.stained, "seen": tissue.seen}
    known = {name: mask for name, mask in masks.items() if mask is not None}
    np.savez_compressed(data, plan=np.frombuffer(text, np.uint8), tissue=tissue.mask, **known)
    write_bytes(folder / PLAN_FILE, data.getvalue())


def plan_for(folder: Path, key: str) -> SlidePlan | None:
    """Return the plan in a scratch folder; None where it was made for other work than `key`, or there is no readable one.

    Parameters
    ----------
    folder : Path
        The scratch folder.
    key : str
        Of slide, model and settings.

    Returns
    -------
    SlidePlan or None
        The plan.
    """
    try:
        with np.load(folder / PLAN_FILE, allow_pickle=False) as data:
            content = _content(data)
            return _plan(content, data) if content.get("key") == key else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def load_plan(folder: Path) -> SlidePlan:
    """Read what `save_plan` wrote.

    Parameters
    ----------
    folder : Path
        The scratch folder.

    Returns
    -------
    SlidePlan
        The plan.
    """
    with np.load(folder / PLAN_FILE, allow_pickle=False) as data:
        return _plan(_content(data), data)


def _content(data: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return TypeAdapter(dict[str, Any]).validate_json(data["plan"].tobytes())


def _plan(content: Mapping[str, Any], data: Mapping[str, NDArray[Any]]) -> SlidePlan:
    mask, stained, seen = data["tissue"], data.get("stained"), data.get("seen")
    frame = TypeAdapter(Frame).validate_python(content["frame"])
    return SlidePlan(
        slide=TypeAdapter(SlideInput).validate_python(content["slide"]),
        info=TypeAdapter(SlideInfo).validate_python(content["info"]),
        frame=frame,
        mpp_source=content["mpp_source"],
        tissue=TissueMask(mask, content["px_per_cell"], frame.width_px, frame.height_px, stained, seen),
        blocks=TypeAdapter(tuple[Box, ...]).validate_python(content["blocks"]),
        block_px=content["block_px"],
        stride_px=content["stride_px"],
        patches_across=content["patches_across"],
        broken_tiles=content["broken_tiles"],
        precision=content["precision"],
        key=content["key"],
        stain=_STAIN.validate_python(content["stain"]),
        drawn=Drawn(
            {name: shapely.from_wkb(r) for name, r in content["regions"].items()},
            None if content["allowed"] is None else shapely.from_wkb(content["allowed"]),
            content["own_tissue"],
        ),
    )
