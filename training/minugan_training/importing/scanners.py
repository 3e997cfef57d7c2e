"""Which scanner made an image, in the sets where its number tells."""

from __future__ import annotations

from pathlib import Path

from minugan_training.data.images import MPP_40X

_MIDOG21 = (("Hamamatsu XR", 50), ("Hamamatsu S360", 100), ("Aperio CS2", 150), ("Leica GT450", 200))
"""Each with the last image that it scanned."""
_MIDOG21_MPP = {"Hamamatsu XR": 0.23, "Hamamatsu S360": 0.23, "Leica GT450": 0.26}

_LAST_TUPAC16_APERIO = 23
"""The cases up to here are from UMC Utrecht (Aperio), the others from two other hospitals (Leica); Veta et al. 2019."""


def midog21_scanner(number: int) -> str:
    """Return the scanner of MIDOG 2021's image of a number; empty for numbers that it has not.

    Parameters
    ----------
    number : int
        Of the image.

    Returns
    -------
    str
        The scanner's name.

    Examples
    --------
    >>> midog21_scanner(60)
    'Hamamatsu S360'
    """
    return next((name for name, last in _MIDOG21 if 1 <= number <= last), "")


def scanner_mpp(scanner: str) -> float:
    """Return um/px of one of MIDOG 2021's scanners; 0.25 for any other.

    Parameters
    ----------
    scanner : str
        The scanner's name.

    Returns
    -------
    float
        um/px.
    """
    return _MIDOG21_MPP.get(scanner, MPP_40X)


def tupac16_scanner(case: int) -> str:
    """Return the scanner of a case of TUPAC16's auxiliary mitosis set.

    Parameters
    ----------
    case : int
        Number of the case.

    Returns
    -------
    str
        The scanner's name.
    """
    return "Aperio" if case <= _LAST_TUPAC16_APERIO else "Leica"


def amibr_scanner(dataset: str, slide: str) -> str:
    """Return AMi-Br's set and scanner of a slide, such as ``002.tiff`` of MIDOG21 or ``04_stitched1.tif`` of TUPAC16.

    Parameters
    ----------
    dataset : {"MIDOG21", "TUPAC16"}
        The set that the slide is from.
    slide : str
        Name of the slide's file.

    Returns
    -------
    str
        Both, separated by a space.
    """
    number = int(Path(slide).stem.split("_")[0])
    return f"{dataset} {midog21_scanner(number) if dataset == 'MIDOG21' else tupac16_scanner(number)}"
