"""Data sets of nuclei: MoNuSeg and the paper's label maps, from their published layouts to the index."""

from __future__ import annotations

from pathlib import Path

from minugan_training.data.images import MPP_40X, image_size, list_images
from minugan_training.data.index import Entry
from wsi_minugan.errors import DataError


def monuseg_pairs(root: Path) -> list[tuple[Path, Path]]:
    """Return MoNuSeg's images, each with its XML or instance PNG of the same stem in another folder.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of tuple of Path
        Image, truth.
    """
    truths = {p.stem: p for p in sorted(root.rglob("*.xml"))}
    truths |= {p.stem: p for p in sorted(root.rglob("*.png")) if "instance" in p.parent.name.lower()}
    return [(p, truths[p.stem]) for p in list_images(root) if p.stem in truths and p != truths[p.stem]]


def import_monuseg(root: Path) -> list[Entry]:
    """MoNuSeg: images beside (or under ``Tissue Images``) XML outlines (``Annotations``) or instance PNGs of the same stem.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        Empty where there is no pair.
    """
    entries = []
    for image, truth in monuseg_pairs(root):
        w, h = image_size(image)
        entries.append(
            Entry(
                dataset="monuseg", image=image.relative_to(root).as_posix(), width_px=w, height_px=h, mpp=MPP_40X,
                patient="-".join(image.stem.split("-")[:3]), mitoses="unknown", nuclei="known",
                nuclei_kind="monuseg-xml" if truth.suffix == ".xml" else "instances",
                nuclei_truth=truth.relative_to(root).as_posix(),
            )
        )  # fmt: skip
    return entries


def import_rgb(root: Path) -> list[Entry]:
    """The paper's label maps: ``images/NAME`` and ``labels/NAME`` in red (nuclei), green (mitoses), blue (boundary), black.

    Parameters
    ----------
    root : Path
        The data set.

    Returns
    -------
    list of Entry
        Empty where there is no image.

    Raises
    ------
    DataError
        If an image has no label map of its name.
    """
    entries = []
    truths = {p.stem: p for p in list_images(root / "labels")}
    for image in list_images(root / "images"):
        truth = truths.get(image.stem)
        if truth is None:
            raise DataError(f"{image} has no label map of the same name in {root / 'labels'}.")
        w, h = image_size(image)
        name = truth.relative_to(root).as_posix()
        entries.append(
            Entry(
                dataset="rgb", image=image.relative_to(root).as_posix(), width_px=w, height_px=h, mpp=MPP_40X,
                patient=f"rgb-{image.stem.split('_')[0]}", mitoses="known", mitoses_kind="rgb", mitoses_truth=name,
                nuclei="known", nuclei_kind="rgb", nuclei_truth=name,
            )
        )  # fmt: skip
    return entries
