"""Loading a model and scoring pixels that are already in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_minugan.config import PATCH_PX, Precision
from wsi_minugan.errors import InputError
from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.predictor import Predictor
from wsi_minugan.minugan.stain import StainMap, map_between, slide_stain
from wsi_minugan.pipeline.planning.slide_stain import stain_wish
from wsi_minugan.segmentation.blend import blended_image
from wsi_minugan.segmentation.grid import PatchGrid

STRIDE_PX = 192


def load_model(
    model: str | os.PathLike[str] = "default",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 8,
    threads: int = 1,
) -> Predictor:
    """Load a model once, to use it many times.

    Parameters
    ----------
    model : str or path
        Name of a bundled model, or the folder of a bundle.
    device : {"auto", "cpu", "cuda"}
        Where the network runs. "auto" takes CUDA if there is one.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Arithmetic of the network. "auto" is bf16 where it is faster, else fp32.
    batch_size : int
        Patches per forward pass. 8 suits a CPU, 64 a GPU.
    threads : int
        Torch threads on the CPU, for this process.

    Returns
    -------
    Predictor
        The model. Its card is `bundle.card`.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    DeviceError
        If CUDA is asked for and missing.

    Examples
    --------
    >>> model = load_model()
    >>> model.bundle.card.mpp
    0.25
    """
    bundle = load_bundle(find_bundle(os.fspath(model)))
    return Predictor(bundle, device, precision, batch_size, threads)


def as_predictor(model: str | os.PathLike[str] | Predictor, **options: Any) -> Predictor:
    """Return a loaded model as it is, and load what is named.

    Parameters
    ----------
    model : str, path or Predictor
        A bundled model's name, a bundle's folder, or a loaded model.
    **options : Any
        What `load_model` takes; a loaded model keeps its own.

    Returns
    -------
    Predictor
        The loaded model.
    """
    return model if isinstance(model, Predictor) else load_model(model, **options)


def stain_map(
    patches: Iterable[NDArray[np.uint8]], model: str | os.PathLike[str] | Predictor = "default"
) -> StainMap:
    """Estimate a slide's stain, and return the map from there to the model's target stain.

    Parameters
    ----------
    patches : iterable of ndarray of uint8, shape (h, w, 3)
        RGB at the model's resolution. Fifty patches spread over one slide's tissue are better than many of one place: what is
        densely packed with nuclei looks like a darker stain.
    model : str, path or Predictor
        A model, as `load_model` takes or returns it.

    Returns
    -------
    StainMap
        For `predict`.

    Raises
    ------
    ModelError
        If the model's card has no target stain.
    InputError
        If no patch holds enough tissue.
    """
    wish = stain_wish(as_predictor(model).bundle.card, "always")
    own = slide_stain(patches)
    if own is None or wish is None:
        raise InputError(
            "No patch holds enough tissue to tell the stain. Give patches of tissue, at 0.25 um/px."
        )
    return map_between(own, wish.known.target)


def predict(
    pixels: ArrayLike,
    model: str | os.PathLike[str] | Predictor = "default",
    *,
    stride_px: int = STRIDE_PX,
    stain: StainMap | None = None,
) -> NDArray[np.uint8]:
    """Score patches, or an image of any size, at the model's resolution (0.25 um/px).

    Parameters
    ----------
    pixels : array of uint8, shape (n, s, s, 3) or (h, w, 3)
        RGB. Patches have a side s of 256 px, or of as many patches as the model sees at once (`patches_across` on its card). They
        are scored one by one. An image is cut as a slide is, and the scores are blended. NumPy, Dask and Zarr arrays are taken; an
        image must fit into memory.
    model : str, path or Predictor
        A model, as `load_model` takes or returns it. Load it once where you call this often.
    stride_px : int
        Distance of patches of 256 px in an image: even, 128 to 256. Where the model sees several at once, these overlap by as many
        px.
    stain : StainMap, optional
        What is done to the stain first, of `stain_map`. Without it pixels are scored as they are, whatever the model's card says:
        a patch does not tell its slide's stain.

    Returns
    -------
    ndarray of uint8, shape (n, 3, s, s) or (3, h, w)
        255 times the score of nucleus, mitosis and boundary.

    Raises
    ------
    InputError
        If the array has another shape or type, or the stride does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> predict(np.full((300, 400, 3), 240, np.uint8)).shape
    (3, 300, 400)
    """
    array = np.asarray(pixels)
    if array.dtype != np.uint8:
        raise InputError(f"Pixels must be 8-bit (uint8), not {array.dtype}. Convert the image to 8-bit RGB.")
    if array.ndim == 3 and array.shape[2] == 3 and 0 not in array.shape:
        return _predict_image(array, as_predictor(model), fitting_stride(stride_px), stain)
    loaded = as_predictor(model) if array.ndim == 4 else None
    sides = {PATCH_PX, PATCH_PX * loaded.bundle.card.patches_across} if loaded else set()
    if loaded is None or array.shape[1:] not in {(side, side, 3) for side in sides}:
        raise InputError(
            f"Pixels must have the shape (n, {PATCH_PX}, {PATCH_PX}, 3) or (h, w, 3), not {array.shape}. Give RGB, channels last."
        )
    return loaded.predict(array, stain)


def fitting_stride(stride_px: int) -> int:
    """Return a distance of patches, if patches of such a distance cover an image and the inner square between them is centred.

    Parameters
    ----------
    stride_px : int
        Distance of patches.

    Returns
    -------
    int
        The same.

    Raises
    ------
    InputError
        If it is odd, or not 128 to 256.
    """
    if stride_px % 2 or not PATCH_PX // 2 <= stride_px <= PATCH_PX:
        raise InputError(f"A stride of {stride_px} px does not fit. Give an even number from 128 to 256.")
    return stride_px


def _predict_image(
    image: NDArray[np.uint8], predictor: Predictor, stride_px: int, stain: StainMap | None
) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    grid = PatchGrid.of_windows(height, width, stride_px, predictor.bundle.card.patches_across)
    return blended_image(image, grid, predictor.windows_at_once, lambda p: predictor.predict(p, stain))
