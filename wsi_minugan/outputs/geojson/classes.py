"""Classes of objects in a GeoJSON, and what they mean."""

from __future__ import annotations

import re
from typing import Any

MITOSIS, HOTSPOT, FIELD = "Mitosis", "Hot spot", "High-power field"
WINDOWS = (HOTSPOT, FIELD)
"""Classes of what mitoses are counted in, and that is none."""
PEAK = "Peak score"
COLOURS = {MITOSIS: (0, 200, 60), HOTSPOT: (255, 170, 0), FIELD: (0, 150, 255)}

_SAYS_NO = re.compile(
    r"like|negativ|impost[eo]r|mimic|art[ei]fact|apopto|pykno|\bnon?\b|\bnot\b|false|reject|exclude|ignore|doubt|uncertain|unsure|unclear|"
    r"maybe|possible|suspicious|suspect|candidate|questionable|\?"
)
"""Words of a class that begins with a mitosis and does not mean one, or not for sure."""


def label_of(feature: Any) -> str:
    """Return the name of a feature's class, in the ways QuPath's versions write it; empty where it has none.

    Parameters
    ----------
    feature : Any
        A feature of any file.

    Returns
    -------
    str
        The class's name.
    """
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return ""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = classification.get("name") or (": ".join(map(str, names)) if names else "")
    if not classification:  # ours may have lost its class
        name = str(properties.get("name") or "")
        classification = next((label for label in WINDOWS if name.startswith(label)), "")
    return str(classification or "")


def is_mitosis(label: str) -> bool:
    """Return whether a class of QuPath's means mitoses: look-alikes, negatives and doubtful ones do not count.

    Parameters
    ----------
    label : str
        Name of the class.

    Returns
    -------
    bool
        Without regard to case.
    """
    lowered = label.casefold().replace("_", " ").strip()
    return lowered.startswith(("mitosis", "mitoses", "mitotic figure")) and not _SAYS_NO.search(lowered)
