"""Mitotic scores from counts."""

from __future__ import annotations

from wsi_minugan.errors import SettingsError

# Upper ends of score 1 and of score 2 for ten fields of a diameter in hundredths of a millimetre
# (Nottingham grading; table of the UK guidelines, see docs/architecture.md).
_NOTTINGHAM: dict[int, tuple[int, int]] = {
    40: (4, 9), 41: (4, 9), 42: (5, 10), 43: (5, 10), 44: (5, 11), 45: (5, 11), 46: (6, 12), 47: (6, 12),
    48: (6, 13), 49: (6, 13), 50: (7, 14), 51: (7, 14), 52: (7, 15), 53: (8, 16), 54: (8, 16), 55: (8, 17),
    56: (8, 17), 57: (9, 18), 58: (9, 19), 59: (9, 19), 60: (10, 20), 61: (10, 21), 62: (11, 22), 63: (11, 22),
    64: (11, 23), 65: (12, 24), 66: (12, 24), 67: (12, 25), 68: (13, 26), 69: (13, 27),
}  # fmt: skip


def nottingham_cuts(hpf_diameter_mm: float) -> tuple[int, int]:
    """Return the largest counts that score 1 and 2, over ten fields of a diameter.

    Parameters
    ----------
    hpf_diameter_mm : float
        Diameter of a high-power field, 0.40 to 0.69 mm. It is rounded to 0.01 mm.

    Returns
    -------
    tuple of int
        Largest count of score 1, and of score 2. A higher count scores 3.

    Raises
    ------
    SettingsError
        If the table has no such diameter.

    Notes
    -----
    The score is Nottingham's (Elston and Ellis, Histopathology 19, 1991). The table by field diameter is that of the UK guidelines.

    Examples
    --------
    >>> nottingham_cuts(0.5)
    (7, 14)
    """
    cuts = _NOTTINGHAM.get(round(hpf_diameter_mm * 100))
    if cuts is None:
        raise SettingsError(
            f"The Nottingham score is not defined for a field diameter of {hpf_diameter_mm:g} mm. "
            "Give --hpf-diameter-mm between 0.40 and 0.69."
        )
    return cuts


def nottingham_score(mitoses: float, hpf_diameter_mm: float) -> int:
    """Return the Nottingham mitotic score of a count over ten fields; see `nottingham_cuts`.

    Parameters
    ----------
    mitoses : float
        Mitoses in ten high-power fields together.
    hpf_diameter_mm : float
        Diameter of a high-power field, 0.40 to 0.69 mm.

    Returns
    -------
    int
        1, 2 or 3; see `nottingham_cuts`.

    Raises
    ------
    SettingsError
        If the table has no such diameter.

    Examples
    --------
    >>> nottingham_score(8, hpf_diameter_mm=0.5)
    2
    """
    low, high = nottingham_cuts(hpf_diameter_mm)
    return 1 if mitoses <= low else 2 if mitoses <= high else 3


def tupac16_score(mitoses: float) -> int:
    """Return the mitotic score of the TUPAC16 challenge for a count in a hot spot of about 2 mm2.

    Parameters
    ----------
    mitoses : float
        Mitoses in 2 mm2.

    Returns
    -------
    int
        1 below 6 mitoses, 2 from 6 to 10, 3 above 10.

    Notes
    -----
    The cut-offs are those of Veta et al., Medical Image Analysis 54, 2019.

    Examples
    --------
    >>> tupac16_score(5), tupac16_score(6), tupac16_score(11)
    (1, 2, 3)
    """
    return 1 if mitoses < 6 else 2 if mitoses <= 10 else 3
