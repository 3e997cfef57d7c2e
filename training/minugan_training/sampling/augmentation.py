"""Random changes of patches; every one is drawn from the generator handed in."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.data.images import SUBSAMPLED, compressed, soften_colours
from minugan_training.data.labels import IGNORE, MITOSES, Sample
from minugan_training.settings import Augmentation
from wsi_minugan.minugan.stain import STAINS, UNMIX, optical_density, rgb_of

Patch = tuple[NDArray[np.uint8], NDArray[np.uint8]]
_SUBSAMPLINGS = (
    *[SUBSAMPLED] * 6,
    *[cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422] * 3,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)
"""How scanners store colours, as often as training shows it."""
_SOFTENED = 0.4
"""Share of compressed patches whose colours are blurred before."""
_BLOCK_PX = 16
"""Side of JPEG's blocks of halved colours: what is cut off stays out of the patch."""
_CROP_PX = 128
"""Side of the crops in which AMi-Br shows its mitoses."""


def cut_patch(
    sample: Sample,
    centre_px: tuple[float, float],
    size_px: int,
    change: Augmentation,
    rng: np.random.Generator,
) -> Patch:
    """Return a patch around a place: image and labels, both ``(size, size, 3)`` uint8; unknown outside the image.

    Parameters
    ----------
    sample : Sample
        Image and labels.
    centre_px : tuple of float
        x, y on the sample; the centre of pixel 0 is at 0.
    size_px : int
        Side of the patch.
    change : Augmentation
        How the patch may be changed.
    rng : numpy.random.Generator
        It decides how it is changed.

    Returns
    -------
    Patch
        Image and labels.
    """
    angle = rng.uniform(0, 2 * math.pi) if change.rotate else 0.0
    scale = math.exp(rng.uniform(math.log(change.scale[0]), math.log(change.scale[1])))
    mirror = -1.0 if change.rotate and rng.random() < 0.5 else 1.0
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    turn = np.array([[cos, -sin * mirror], [sin, cos * mirror]])
    shift = size_px / 2 + rng.uniform(-1, 1, 2) * change.shift_px - turn @ np.array(centre_px)
    reach_px = (size_px / 2 + change.shift_px) * math.sqrt(2) / scale + _BLOCK_PX
    if change.crop and rng.random() < change.crop:
        reach_px = min(reach_px, _CROP_PX / 2)
    window = _window_around(centre_px, reach_px, sample.image.shape)
    matrix = np.hstack([turn, (shift + turn @ (window[1].start, window[0].start))[:, None]])
    image, labels = sample.image[window], sample.labels[window]
    if change.compressed and rng.random() < change.compressed:
        image = _as_stored(image, rng)
    patch = _turned((image, labels), matrix, size_px)
    if change.ground and rng.random() < change.ground:
        patch = with_ground(patch, rng)
    return _degrade(patch[0], change, rng), patch[1]


def _turned(patch: Patch, matrix: NDArray[np.float64], size_px: int) -> Patch:
    """Return a patch moved by an affine matrix; beyond its border the image is mirrored, and nothing is known."""
    size, unknown = (size_px, size_px), (IGNORE,) * 3
    image = cv2.warpAffine(patch[0], matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    labels = cv2.warpAffine(
        patch[1], matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=unknown
    )
    return np.asarray(image, np.uint8), np.asarray(labels, np.uint8)


def _as_stored(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return an image as some scanner may have stored it: its colours blurred or not, then as a JPEG."""
    if rng.random() < _SOFTENED:
        image = soften_colours(np.ascontiguousarray(image), rng.uniform(0.5, 2.5))
    subsampling = _SUBSAMPLINGS[int(rng.integers(len(_SUBSAMPLINGS)))]
    return compressed(image, int(rng.integers(50, 96)), subsampling)


def _window_around(
    centre_px: tuple[float, float], reach_px: float, shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Return the part of an image that a patch is made from, so that no more than this need be compressed."""
    rows, columns = (
        slice(max(0, math.floor(at - reach_px)), min(n, math.ceil(at + reach_px)))
        for at, n in zip(centre_px[::-1], shape, strict=False)
    )
    return rows, columns


def with_ground(patch: Patch, rng: np.random.Generator) -> Patch:
    """Return a patch of which a part, a tenth to six tenths, is the slide's bare ground, as at the tissue's edge.

    There is neither nucleus nor mitosis on it; what is left of a mitosis that it cuts is unknown.

    Parameters
    ----------
    patch : Patch
        Image and labels.
    rng : numpy.random.Generator
        It decides how much, and where.

    Returns
    -------
    Patch
        A new one.
    """
    image, labels = patch
    coarse = rng.normal(size=(int(rng.integers(2, 6)),) * 2).astype(np.float32)
    hills = cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    bare = hills < np.quantile(hills, rng.uniform(0.1, 0.6))
    share = cv2.GaussianBlur(bare.astype(np.float32), (0, 0), rng.uniform(0.5, 3))[..., None]
    colour = rng.uniform(228, 251) + rng.uniform(-4, 4, 3).astype(np.float32)
    mixed = (1 - share) * image + share * colour
    _, pieces = cv2.connectedComponents((labels[..., MITOSES] == 1).astype(np.uint8))
    told = labels.copy()
    told[np.isin(pieces, np.setdiff1d(pieces[bare], 0)), MITOSES] = IGNORE
    told[bare] = 0
    return np.asarray(mixed, np.uint8), told


def _degrade(image: NDArray[np.uint8], change: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    kind = rng.random()
    if kind < change.blur:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5)), np.uint8)
    if kind < change.blur + change.jpeg:
        return compressed(image, int(rng.integers(40, 85)))
    if kind < change.blur + change.jpeg + change.sharpen:
        soft = cv2.GaussianBlur(image, (0, 0), 1.2).astype(np.float32)
        return np.asarray(np.clip(2 * image.astype(np.float32) - soft, 0, 255), np.uint8)
    if kind < change.blur + change.jpeg + change.sharpen + change.reduce:
        return _as_enlarged(image, rng.uniform(1.4, 2.0))
    return image


def _as_enlarged(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Return a patch as a slide of less than 40x shows it, read at the model's resolution."""
    h, w = image.shape[:2]
    small = cv2.resize(image, (round(w / factor), round(h / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)


_STAINED = 0.9
"""Share of batches whose stains are changed."""


def batch_input(images: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a batch as networks take it; in nine of ten batches stains and colours are changed at random.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, h, w, 3)
        RGB.
    strength : float
        Of `change_stains`.
    rng : Generator
        Where randomness comes from.

    Returns
    -------
    ndarray of float32, shape (n, 3, h, w)
        RGB in [-1, 1].
    """
    changed = change_stains(images, strength if rng.random() < _STAINED else 0.0, rng)
    return np.ascontiguousarray((changed / np.float32(127.5) - np.float32(1)).transpose(0, 3, 1, 2))


def change_stains(
    images: NDArray[np.uint8], strength: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return images with each stain's density and the colours changed at random.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, h, w, 3)
        RGB.
    strength : float
        0 changes nothing; 1 is wide: densities by 0.7 to 1.35, contrast by 15 %, brightness by 14 grey levels.
    rng : Generator
        Where randomness comes from.

    Returns
    -------
    ndarray of float32, shape (n, h, w, 3)
        RGB, 0 to 255.
    """
    out = images.astype(np.float32)
    if strength == 0:
        return out
    n = len(images)

    def draw(low: float, high: float, channels: int = 3) -> NDArray[np.float32]:
        return rng.uniform(low * strength, high * strength, (n, 1, 1, channels)).astype(np.float32)

    density = optical_density(out) @ UNMIX
    density = density * (1 + draw(-0.3, 0.35)) + draw(-0.06, 0.06)
    out = rgb_of(np.asarray(density @ STAINS, np.float32))
    out = (out - 128) * (1 + draw(-0.15, 0.15, 1)) + 128 + draw(-14, 14, 1)
    out *= 1 + draw(-0.05, 0.05)
    return np.asarray(np.clip(out, 0, 255), np.float32)
