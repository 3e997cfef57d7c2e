"""Masks as Dask arrays, with their scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsi_minugan.api.folders import ResultFolder
from wsi_minugan.outputs.models import Manifest
from wsi_minugan.segmentation.masks.reading import open_levels

if TYPE_CHECKING:
    import dask.array as da
    import zarr


@dataclass(frozen=True)
class Mask:
    """One mask of a slide, as a pyramid.

    Attributes
    ----------
    name : str
        "classes" (0 background, 1 nucleus, 2 mitosis), "mitoses" or "nuclei" (instance numbers, 0 background),
        "mitosis_score" (0 to 255) or "coverage" (1 where the slide was analysed).
    levels : tuple of dask arrays, each of shape (h, w)
        The pyramid, finest first; each level has half the size of the one before. Pixels are read when computed.
    mpp : float
        um per pixel of the finest level.
    slide_px : float
        Slide pixels (level 0) per pixel of the finest level.
    """

    name: str
    levels: tuple[da.Array, ...]
    mpp: float
    slide_px: float

    @property
    def data(self) -> da.Array:
        """The finest level, shape ``(h, w)``, uint8 or uint32.

        Returns
        -------
        dask.array.Array
            It reads chunks when they are needed.
        """
        return self.levels[0]

    def scale_um(self, level: int = 0) -> tuple[float, float]:
        """Return um per pixel of a level, in y and x.

        Parameters
        ----------
        level : int
            Level of the pyramid; 0 is the finest.

        Returns
        -------
        tuple of float
            um per pixel in y and x.
        """
        return self.mpp * 2**level, self.mpp * 2**level


class _Lazy:
    """A Zarr array that keeps a temporary result folder alive while Dask may still read it."""

    def __init__(self, array: zarr.Array[Any], folder: ResultFolder) -> None:
        self._array, self._folder = array, folder
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]


def read_masks(folder: ResultFolder, manifest: Manifest) -> dict[str, Mask]:
    """Return the masks of a slide by name.

    Parameters
    ----------
    folder : ResultFolder
        A slide's results. The masks keep a temporary folder alive.
    manifest : Manifest
        What the results were made with.

    Returns
    -------
    dict of str to Mask
        All that ``masks.zarr`` holds.
    """
    import dask.array as da

    slide_px = manifest.analysis_mpp / manifest.slide.mpp
    found = {}
    for name, levels in open_levels(folder.path / "masks.zarr").items():
        arrays = tuple(da.from_array(_Lazy(a, folder), chunks=a.chunks, asarray=False) for a in levels)
        found[name] = Mask(name, arrays, manifest.analysis_mpp, slide_px)
    return found
