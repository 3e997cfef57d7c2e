"""Scores of patches that several blocks need: the first block to make them leaves them for the others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.config import OUT_CHANNELS, PATCH_PX
from wsi_minugan.errors import OutputError


@dataclass(frozen=True)
class PatchScores:
    """Files of scores, one a patch. They are not synced, for a lost one is only computed again.

    Attributes
    ----------
    folder : Path
        Where they lie. It is made with the first file; the folder above must be there.
    """

    folder: Path

    def save(self, i: int, j: int, scores: NDArray[np.uint8]) -> None:
        """Keep a patch's scores for the neighbouring blocks.

        Parameters
        ----------
        i, j : int
            Row and column of the patch.
        scores : ndarray of uint8, shape (3, s, s)
            255 times the scores.

        Raises
        ------
        OutputError
            If the scratch folder does not take the file.
        """
        path = self._path(i, j)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(imagecodecs.zstd_encode(scores.tobytes(), level=1))
            temporary.replace(path)
        except OSError as e:
            raise OutputError(
                f"{path} cannot be written: {e.strerror or e}. Check the folder and its disk."
            ) from e

    def load(self, i: int, j: int, side_px: int = PATCH_PX) -> NDArray[np.uint8] | None:
        """Return a patch's scores if another block already made them.

        Parameters
        ----------
        i, j : int
            Row and column of the patch.
        side_px : int
            Its side.

        Returns
        -------
        ndarray of uint8, shape (3, side_px, side_px), or None
            255 times the scores.
        """
        try:
            raw = imagecodecs.zstd_decode(self._path(i, j).read_bytes())
            return np.frombuffer(raw, np.uint8).reshape(OUT_CHANNELS, side_px, side_px)
        except (OSError, imagecodecs.ZstdError, ValueError):
            return None

    def _path(self, i: int, j: int) -> Path:
        return self.folder / f"{i:05d}-{j:05d}.zst"
