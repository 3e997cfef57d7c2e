"""Samples of a pack."""

from __future__ import annotations

import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from minugan_training.data.labels import Sample
from minugan_training.packs.pack import FORMAT, MANIFEST, PackManifest, decoded, labels_name
from minugan_training.sampling.pool import Pool
from wsi_minugan.errors import DataError

_LARGEST_MEMBER = 64 * 2**20
_READ_ERRORS = (
    OSError,
    zipfile.BadZipFile,
    KeyError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    zlib.error,
)
"""What zipfile raises on garbled files."""


class PackedPool(Pool):
    """Samples of a pack, all read into memory when it is opened.

    Parameters
    ----------
    path : Path
        What `minugan-train pack` wrote.
    threads : int
        Threads that decode.

    Raises
    ------
    DataError
        If it cannot be read, or is no pack.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            with zipfile.ZipFile(path) as pack:
                manifest = _manifest_of(pack)
                files = [
                    (_member(pack, r.entry.image), _member(pack, labels_name(r.entry)))
                    for r in manifest.regions
                ]
        except _READ_ERRORS as e:
            raise DataError(f"The pack {path} cannot be read: {e}. Make it with: minugan-train pack") from e
        super().__init__(path.parent, [r.entry for r in manifest.regions])
        self._truths = [np.array(r.mitoses_px, np.float64).reshape(-1, 2) for r in manifest.regions]
        with ThreadPoolExecutor(threads) as executor:
            samples = executor.map(lambda k: self._decode(k, *files[k]), range(len(files)))
            self._samples.update(enumerate(samples))

    def _decode(self, index: int, image: bytes, labels: bytes) -> Sample:
        entry = self.entries[index]
        pixels, told = decoded(image, labels, entry)
        return Sample(pixels, told, entry.mpp)

    def sample(self, index: int) -> Sample:
        """Return a region's image and labels.

        Parameters
        ----------
        index : int
            Place of the region in the pack.

        Returns
        -------
        Sample
            In memory since the pack was opened.
        """
        return self._samples[index]

    def _truth(self, index: int) -> NDArray[np.float64]:
        return self._truths[index] + 0.5


def _manifest_of(pack: zipfile.ZipFile) -> PackManifest:
    try:
        manifest = PackManifest.model_validate_json(_member(pack, MANIFEST))
    except ValidationError as e:
        raise ValueError("its manifest does not fit") from e
    if manifest.format != FORMAT:
        raise ValueError(f"its format is {manifest.format}, and this version reads {FORMAT}")
    return manifest


def _member(pack: zipfile.ZipFile, name: str) -> bytes:
    if pack.getinfo(name).file_size > _LARGEST_MEMBER:
        raise ValueError(f"{name} is larger than a pack's files are")
    return pack.read(name)
