"""TIAToolbox's stain normalisers, fitted once for a slide instead of for each patch; the extra [tiatoolbox] brings them.

TIAToolbox estimates the stains of every patch anew. Patches with little tissue then get colours of their own, and neighbours differ.
Here the stains are estimated once, from a picture of the slide's tissue, and the same map is used for all of its patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.errors import InputError

Method = Literal["macenko", "vahadane", "reinhard"]
_STRONGEST_PERCENT = 99
"""TIAToolbox takes this percentile of a stain's concentrations for its strongest."""
_LEAST_DENSITY = 1e-6


@dataclass(frozen=True)
class DensityMap:
    """A linear map of optical densities: Macenko's and Vahadane's normalisers, with stains that stay the same.

    Attributes
    ----------
    matrix : ndarray of float, shape (3, 3)
        The row of a pixel's densities in R, G, B is multiplied with it from the left.
    """

    matrix: NDArray[np.float64]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels with their stains moved.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (..., 3)
            RGB.

        Returns
        -------
        ndarray of uint8, shape (..., 3)
            RGB, cut off to whole numbers as TIAToolbox does.
        """
        density = np.maximum(-np.log(np.maximum(pixels, 1) / 255), _LEAST_DENSITY)
        moved: NDArray[np.uint8] = np.clip(255 * np.exp(-density @ self.matrix), 0, 255).astype(np.uint8)
        return moved


@dataclass(frozen=True)
class LabMap:
    """Reinhard's normaliser with means and spreads that stay the same; of the channels of CIELAB.

    Attributes
    ----------
    means, stds : tuple of float, shape (3,)
        The slide's mean and standard deviation of L, a, b.
    target_means, target_stds : tuple of float, shape (3,)
        Those that it gets.
    """

    means: tuple[float, ...]
    stds: tuple[float, ...]
    target_means: tuple[float, ...]
    target_stds: tuple[float, ...]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels with their colours moved.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (h, w, 3)
            RGB.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB.
        """
        from tiatoolbox.tools.stainnorm import ReinhardNormalizer

        channels = ReinhardNormalizer.lab_split(pixels)
        figures = zip(channels, self.means, self.stds, self.target_means, self.target_stds, strict=True)
        moved: NDArray[np.uint8] = ReinhardNormalizer.merge_back(
            *((c - mean) * (wanted / std) + level for c, mean, std, level, wanted in figures)
        )
        return moved


def fit_normalizer(
    method: Method, source: NDArray[np.uint8], target: NDArray[np.uint8]
) -> DensityMap | LabMap:
    """Fit one of TIAToolbox's stain normalisers once, for all patches of a slide.

    Parameters
    ----------
    method : {"macenko", "vahadane", "reinhard"}
        TIAToolbox warns that its Vahadane is not stable.
    source : ndarray of uint8, shape (h, w, 3)
        RGB of the slide's tissue at the resolution of its patches, such as some patches one above another.
    target : ndarray of uint8, shape (h, w, 3)
        RGB of tissue whose stain the slide gets.

    Returns
    -------
    DensityMap or LabMap
        What maps a patch's pixels; it fits `MinuganModel.preproc_func`, and goes before `wsi_minugan.predict`.

    Raises
    ------
    InputError
        If TIAToolbox is not installed, or a picture holds no two stains.

    Examples
    --------
    >>> normalise = fit_normalizer("macenko", source=tissue, target=reference)  # doctest: +SKIP
    >>> scores = wsi_minugan.predict(normalise(patches))  # doctest: +SKIP
    """
    try:
        from tiatoolbox.tools.stainnorm import ReinhardNormalizer, get_normalizer
    except ImportError as e:
        raise InputError(
            f"TIAToolbox is not installed ({e}). Do: pip install 'wsi-minugan[tiatoolbox]'"
        ) from e
    normalizer = get_normalizer(method)
    fit = _lab_map if isinstance(normalizer, ReinhardNormalizer) else _density_map
    try:
        # TIAToolbox writes into the pictures that it is given.
        with np.errstate(all="raise"):
            normalizer.fit(target.copy())
            return fit(normalizer, source.copy())
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as e:
        raise InputError(
            f"The {method} normaliser finds no two stains in one of the pictures ({e}). Give pictures full of H&E tissue."
        ) from e


def _density_map(normalizer: Any, source: NDArray[np.uint8]) -> DensityMap:
    stains = normalizer.extractor.get_stain_matrix(source)
    strengths = normalizer.get_concentrations(source, stains)
    ratio = normalizer.maxC_target[0] / np.percentile(strengths, _STRONGEST_PERCENT, axis=0)
    return DensityMap(np.linalg.pinv(stains) * ratio @ normalizer.stain_matrix_target)


def _lab_map(normalizer: Any, source: NDArray[np.uint8]) -> LabMap:
    means, stds = normalizer.get_mean_std(source)
    if 0 in stds:
        raise ValueError("one colour only")
    return LabMap(means, stds, normalizer.target_means, normalizer.target_stds)
