"""A slide's scratch folder: what stages hand each other. Scores of patches that several blocks need are `blocks.patch_scores`.

Nothing here is a result. Files appear whole or not at all, so a stage that was killed is simply done again. What was made under
another key is never seen: a block of a run that was stopped may end after the next run, with other settings, has begun.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from wsi_minugan.errors import RETRY, OutputError
from wsi_minugan.geometry import Box
from wsi_minugan.hashing import sha256_of
from wsi_minugan.outputs.atomic import write_bytes
from wsi_minugan.outputs.manifest import SCRATCH
from wsi_minugan.pipeline.blocks.packing import (
    ClassObjects,
    packed_block,
    packed_merged,
    unpacked_numbered,
    unpacked_objects,
    unpacked_runs,
    unpacked_shapes,
)
from wsi_minugan.pipeline.blocks.patch_scores import PatchScores
from wsi_minugan.segmentation.merging import SlideObjects
from wsi_minugan.segmentation.objects import BlockObjects
from wsi_minugan.segmentation.run_lengths import RunLengthMask

WORK = SCRATCH
ANALYSED, WRITTEN = "analysed", "written"
"""The stages that write shards."""


@dataclass(frozen=True)
class Scratch:
    """Scratch files of one slide.

    Attributes
    ----------
    folder : Path
        ``OUT/SLIDE_ID/.work``.
    key : str
        Digest of the work that it belongs to.
    """

    folder: Path
    key: str = ""

    @property
    def place(self) -> Path:
        """Where the files of this work lie.

        Returns
        -------
        Path
            Below the scratch folder; named by the work's key.
        """
        digest, _, cut = self.key.partition("-")
        return self.folder / (f"{digest[:16]}-{cut}" if cut else digest[:16])

    @property
    def patches(self) -> PatchScores:
        """The scores of patches that several blocks need.

        Returns
        -------
        PatchScores
            Of this work.
        """
        return PatchScores(self.place / "patches")

    def check(self) -> None:
        """Check, before results are written, that they still are wanted.

        Raises
        ------
        OutputError
            If another run began this slide anew, or its folder was removed.
        """
        if not self.place.is_dir():
            raise OutputError(
                f"{self.place} is gone: another run began this slide anew, or its folder was removed."
            )

    def save_block(
        self,
        index: int,
        runs: Mapping[str, RunLengthMask],
        found: Mapping[str, ClassObjects],
        shards: Mapping[str, str],
    ) -> None:
        """Write what a block found: the pixels and objects of "mitoses" and "nuclei", and the digests of its shards so far.

        Parameters
        ----------
        index : int
            Which of the plan's blocks.
        runs : mapping of str to RunLengthMask
            Pixels by class.
        found : mapping of str to ClassObjects
            Objects by class.
        shards : mapping of str to str
            SHA-256 by path in ``masks.zarr``.
        """
        self.save_shards(ANALYSED, index, shards)
        self._save(f"objects-{index:06d}.npz", packed_block(runs, found))

    def save_shards(self, part: str, index: int, shards: Mapping[str, str]) -> None:
        """Note the files of masks that a stage wrote for a block, with their SHA-256.

        Parameters
        ----------
        part : str
            The stage: `ANALYSED` or `WRITTEN`.
        index : int
            Which of the plan's blocks.
        shards : mapping of str to str
            SHA-256 by path in ``masks.zarr``.
        """
        write_bytes(self.place / f"{part}-{index:06d}.json", json.dumps(dict(shards)).encode())

    def load_shards(self, part: str, index: int) -> dict[str, str] | None:
        """Return what `save_shards` noted; None where that is not there.

        Parameters
        ----------
        part : str
            The stage: `ANALYSED` or `WRITTEN`.
        index : int
            Which of the plan's blocks.

        Returns
        -------
        dict of str to str or None
            SHA-256 by path in ``masks.zarr``.
        """
        try:
            return TypeAdapter(dict[str, str]).validate_json(
                (self.place / f"{part}-{index:06d}.json").read_bytes()
            )
        except (OSError, ValueError):
            return None

    def has_objects(self, index: int) -> bool:
        """Return whether what a block found is there, and whole.

        Parameters
        ----------
        index : int
            Which of the plan's blocks.

        Returns
        -------
        bool
            False for a file that was cut off.
        """
        return _is_whole_zip(self.place / f"objects-{index:06d}.npz")

    def has_merged(self, names: Iterable[str]) -> bool:
        """Return whether the slide's objects of these classes are there, and whole.

        Parameters
        ----------
        names : iterable of str
            The classes.

        Returns
        -------
        bool
            False where one is missing or cut off.
        """
        return all(_is_whole_zip(self.place / f"merged-{name}.npz") for name in names)

    def whole_blocks(self, blocks: int, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Return what of earlier work is there and as it was written: by stage, the blocks; for "merge" block 0.

        Parameters
        ----------
        blocks : int
            How many blocks the slide has.
        names : iterable of str
            The classes whose objects are wanted.

        Returns
        -------
        dict of str to tuple of int
            By the stages "analyse", "merge" and "write".
        """
        analysed = [k for k in range(blocks) if self.has_objects(k) and self._has_shards(ANALYSED, k)]
        written = [k for k in range(blocks) if self._has_shards(WRITTEN, k)]
        merged = self.has_merged(names)
        return {"analyse": tuple(analysed), "merge": (0,) if merged else (), "write": tuple(written)}

    def _has_shards(self, part: str, index: int) -> bool:
        shards = self.load_shards(part, index)
        slide = self.folder.parent
        return shards is not None and all(
            (slide / name).is_file() and sha256_of(slide / name) == digest for name, digest in shards.items()
        )

    def load_run_lengths(self, index: int, name: str, box: Box) -> RunLengthMask:
        """Return a block's pixels of one class as they were before small objects were dropped.

        Parameters
        ----------
        index : int
            Which of the plan's blocks.
        name : {"mitoses", "nuclei"}
            The class.
        box : Box
            The block, analysis px.

        Returns
        -------
        RunLengthMask
            In the block's own px.
        """
        with self._open(f"objects-{index:06d}.npz") as data:
            return unpacked_runs(data[f"{name}.runs"], (box.height_px, box.width_px))

    def load_objects(self, index: int, box: Box, name: str) -> BlockObjects:
        """Return a block's table and borders of one class.

        Parameters
        ----------
        index : int
            Which of the plan's blocks.
        box : Box
            The block, analysis px.
        name : {"mitoses", "nuclei"}
            The class.

        Returns
        -------
        BlockObjects
            As the block's stage measured them.
        """
        with self._open(f"objects-{index:06d}.npz") as data:
            return unpacked_objects(name, data, box)

    def load_shapes(self, index: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """Return the labels and the outlines of a block's inner objects of one class.

        Parameters
        ----------
        index : int
            Which of the plan's blocks.
        name : {"mitoses", "nuclei"}
            The class.

        Returns
        -------
        labels : ndarray of int64, shape (n,)
            Labels in the block.
        shapes : ndarray of shapely geometries, shape (n,)
            Analysis px.
        """
        with self._open(f"objects-{index:06d}.npz") as data:
            return unpacked_shapes(name, data)

    def save_merged(
        self, name: str, merged: SlideObjects, pieces: Mapping[int, RunLengthMask] | None = None
    ) -> None:
        """Write the objects of the slide.

        Parameters
        ----------
        name : {"mitoses", "nuclei"}
            The class.
        merged : SlideObjects
            The slide's objects.
        pieces : mapping of int to RunLengthMask, optional
            By block, what lies in it of objects that were split after merging; labels are numbers of the slide.
        """
        self._save(f"merged-{name}.npz", packed_merged(merged, pieces or {}))

    def load_merged(self, name: str) -> SlideObjects:
        """Read the objects of the slide, without the blocks' numbers.

        Parameters
        ----------
        name : {"mitoses", "nuclei"}
            The class.

        Returns
        -------
        SlideObjects
            The slide's objects.
        """
        with self._open(f"merged-{name}.npz") as data:
            return SlideObjects({k[6:]: data[k] for k in data.files if k.startswith("table.")}, ())

    def load_numbers(self, name: str, index: int) -> NDArray[np.uint32]:
        """Read the number of each label of one block; 0 where the object was dropped.

        Parameters
        ----------
        name : {"mitoses", "nuclei"}
            The class.
        index : int
            Which of the plan's blocks.

        Returns
        -------
        ndarray of uint32, shape (labels + 1,)
            The first, of the background, is 0.
        """
        with self._open(f"merged-{name}.npz") as data:
            numbers: NDArray[np.uint32] = data[f"numbers.{index}"]
        return numbers

    def load_numbered(self, index: int, name: str, box: Box) -> RunLengthMask:
        """Return a block's pixels of one class, labelled with the slide's numbers; without what was dropped.

        Parameters
        ----------
        index : int
            Which of the plan's blocks.
        name : {"mitoses", "nuclei"}
            The class.
        box : Box
            The block, analysis px.

        Returns
        -------
        RunLengthMask
            In the block's own px.
        """
        runs = self.load_run_lengths(index, name, box)
        with self._open(f"merged-{name}.npz") as data:
            return unpacked_numbered(data, index, runs)

    def _save(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        data = io.BytesIO()
        np.savez(data, **dict[str, Any](arrays))
        write_bytes(self.place / name, data.getvalue())

    def _open(self, name: str) -> Any:
        try:
            return np.load(self.place / name, allow_pickle=False)
        except (OSError, ValueError, zipfile.BadZipFile) as e:
            raise OutputError(
                f"{self.place / name} cannot be read: {e}. Remove the folder {self.folder.parent}, then take the slides that "
                f"are not done again with: {RETRY}"
            ) from e


def _is_whole_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
