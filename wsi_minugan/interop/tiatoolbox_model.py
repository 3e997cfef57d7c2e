"""The model in the engines of TIAToolbox 2.1 (https://tia-toolbox.readthedocs.io); the extra [tiatoolbox] brings it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from wsi_minugan.api.models import STRIDE_PX, fitting_stride, predict
from wsi_minugan.config import PATCH_PX, RunSettings
from wsi_minugan.errors import InputError
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.card import OperatingPoint
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.outputs.exports.objects import NUCLEUS
from wsi_minugan.outputs.geojson import MITOSIS
from wsi_minugan.pipeline.stages import CLASS_OF, object_thresholds
from wsi_minugan.segmentation import classes
from wsi_minugan.segmentation.grid import PatchGrid
from wsi_minugan.segmentation.splitting import classes_of_image

try:
    from tiatoolbox.models.models_abc import ModelABC
except ImportError as e:
    raise InputError(f"TIAToolbox is not installed ({e}). Do: pip install 'wsi-minugan[tiatoolbox]'") from e

if TYPE_CHECKING:
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig

CLASS_NAMES = {classes.BACKGROUND: "Background", classes.NUCLEUS: NUCLEUS, classes.MITOSIS: MITOSIS}
"""What the numbers of the engine's class map mean; its annotation stores name classes by them."""

_TILE_PX = 4096
_AROUND_PX = 256
"""So far beyond a tile an object is seen when it is split or measured: 64 um, many times a nucleus."""


class MinuganModel(ModelABC):  # type: ignore[misc]  # TIAToolbox has no types
    """The whole model, both stages, for TIAToolbox's `SemanticSegmentor`.

    The engine's probabilities are the scores of nucleus, mitosis and boundary. Each is a score of its own, so they do not add up
    to 1. Its predictions are the class map that a run makes of the same scores, without objects that a run drops.

    Parameters
    ----------
    model : str or path
        A bundled model's name, or a bundle's folder.
    operating_point : {"balanced", "sensitive", "specific"}
        Which mitoses are kept, as in a run.
    stride_px : int
        Distance of patches of 256 px: even, 128 to 256. Of a patch the inner square of this side is kept, so that every pixel of a
        slide has the scores of one patch. Where the model sees several patches at once, such a square takes a patch's place. The
        engine's own mean of overlapping patches loses mitoses that one of them sees at its edge.

    Attributes
    ----------
    class_dict : dict of int to str
        `CLASS_NAMES`.

    Raises
    ------
    InputError
        If the stride does not fit.
    ModelError
        If there is no such model, it is damaged, or it has no such operating point.

    Examples
    --------
    >>> from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor  # doctest: +SKIP
    >>> model = MinuganModel()  # doctest: +SKIP
    >>> engine = SemanticSegmentor(model, device="cuda")  # doctest: +SKIP
    >>> run = {"patch_mode": False, "ioconfig": model.io_config(), "output_type": "annotationstore"}  # doctest: +SKIP
    >>> engine.run(["slide.svs"], save_dir="OUT", **run)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "default",
        operating_point: OperatingPoint = "balanced",
        stride_px: int = STRIDE_PX,
    ) -> None:
        super().__init__()
        self.class_dict = dict(CLASS_NAMES)
        self._bundle = load_bundle(find_bundle(os.fspath(model)))
        self._thresholds = object_thresholds(self._bundle, RunSettings(operating_point=operating_point))
        self._loaded: dict[str, Predictor] = {}
        across = self._bundle.card.patches_across
        self._grid = PatchGrid.of_windows(PATCH_PX, PATCH_PX, fitting_stride(stride_px), across)

    def io_config(self) -> IOSegmentorConfig:
        """Return patches, resolution and stride for the engine.

        Returns
        -------
        IOSegmentorConfig
            Patches, or squares of as many as the model sees at once, at its resolution; background is not written into annotation stores.
        """
        from tiatoolbox.models.engine.io_config import IOSegmentorConfig

        inner, resolution = (self._grid.stride_px,) * 2, {"units": "mpp", "resolution": self._bundle.card.mpp}
        return IOSegmentorConfig(
            input_resolutions=[resolution],
            output_resolutions=[resolution],
            patch_input_shape=(self._grid.patch_px,) * 2,
            patch_output_shape=inner,
            stride_shape=inner,
            ignore_index=classes.BACKGROUND,
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Score patches on the device that they are on.

        Parameters
        ----------
        patches : Tensor of uint8, shape (n, s, s, 3)
            RGB.

        Returns
        -------
        Tensor of float32, shape (n, stride, stride, 3)
            Scores of nucleus, mitosis and boundary, 0 to 1.
        """
        scores = self.scores(patches.cpu(), patches.device.type)
        return torch.from_numpy(scores).to(patches.device)

    @staticmethod
    def infer_batch(model: Any, batch_data: ArrayLike, *, device: str) -> NDArray[np.float32]:
        """Score a batch of the engine's.

        Parameters
        ----------
        model : MinuganModel
            The model, as it is or as the engine has wrapped it for several GPUs.
        batch_data : array or Tensor of uint8, shape (n, s, s, 3)
            RGB.
        device : str
            The engine's, such as "cpu" or "cuda".

        Returns
        -------
        ndarray of float32, shape (n, stride, stride, 3)
            Scores of nucleus, mitosis and boundary, 0 to 1, of each patch's inner square.
        """
        scores: NDArray[np.float32] = getattr(model, "module", model).scores(batch_data, device)
        return scores

    def scores(self, patches: ArrayLike, device: str) -> NDArray[np.float32]:
        """Score patches on a device; the model is loaded there at the first call.

        Parameters
        ----------
        patches : array or Tensor of uint8, shape (n, s, s, 3)
            RGB.
        device : str
            As torch names it.

        Returns
        -------
        ndarray of float32, shape (n, stride, stride, 3)
            Scores of nucleus, mitosis and boundary, 0 to 1, of each patch's inner square.

        Raises
        ------
        InputError
            If the patches are of another shape or type.
        DeviceError
            If CUDA is asked for and missing.
        """
        kind = torch.device(device).type
        if kind not in self._loaded:
            self._loaded[kind] = Predictor(self._bundle, kind)
        edge = self._grid.overlap_px // 2
        inner = slice(edge, self._grid.patch_px - edge)
        levels = predict(np.asarray(patches), self._loaded[kind])[..., inner, inner]
        return levels.transpose(0, 2, 3, 1).astype(np.float32) / np.float32(255)

    def postproc(self, image: Any) -> da.Array:
        """Return the class map of scores, lazily, so that a slide need not fit into memory.

        Parameters
        ----------
        image : ndarray or dask array of float, shape (h, w, 3) or (n, h, w, 3)
            Scores of nucleus, mitosis and boundary, 0 to 1.

        Returns
        -------
        dask array of uint8, shape (h, w) or (n, h, w)
            A key of `CLASS_NAMES` for every pixel.
        """
        scores = da.asarray(image)
        if scores.ndim == 4:
            return da.stack([self.postproc(patch) for patch in scores])
        tiles = scores.rechunk({0: _TILE_PX, 1: _TILE_PX, 2: -1})
        return da.map_overlap(
            self._class_map,
            tiles,
            depth={0: _AROUND_PX, 1: _AROUND_PX},
            boundary="none",
            dtype=np.uint8,
            drop_axis=2,
            meta=np.empty((0, 0), np.uint8),
        )

    def _class_map(self, scores: NDArray[np.floating]) -> NDArray[np.uint8]:
        levels = np.ascontiguousarray(np.rint(255 * scores).astype(np.uint8).transpose(2, 0, 1))
        of, mpp = self._thresholds.of, self._bundle.card.mpp
        cuts = {value: of(name, mpp) for name, value in CLASS_OF.items()}
        rule = self._thresholds.splitting_of("nuclei", mpp)
        return classes_of_image(levels, self._thresholds.classes, rule, cuts)
