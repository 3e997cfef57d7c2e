"""How well weak outlines fit those that experts drew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minugan_training.data.index import Entry
from minugan_training.data.labels import in_samples_pixels, load_sample, mitosis_instances
from minugan_training.data.weak_labels import weak_outlines
from minugan_training.evaluation.metrics import dice
from wsi_minugan.errors import DataError

_WINDOW_PX = 40


def outline_scores(root: Path, entries: Sequence[Entry]) -> dict[str, list[float]]:
    """Return the Dice coefficient of each mitosis that an expert outlined, by split.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        Those with outlines of mitoses, at the model's resolution, are used.

    Returns
    -------
    dict of str to list of float
        0 to 1.

    Raises
    ------
    DataError
        If there are none.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        instances = mitosis_instances(root, entry)
        if instances is None:
            continue
        image = load_sample(root, entry).image
        instances = in_samples_pixels(instances, entry)
        for number in np.unique(instances[instances > 0]).tolist():
            mask = instances == number
            y, x = np.argwhere(mask).mean(axis=0)
            top, left = max(0, int(y) - _WINDOW_PX), max(0, int(x) - _WINDOW_PX)
            part = np.s_[top : int(y) + _WINDOW_PX + 1, left : int(x) + _WINDOW_PX + 1]
            weak = weak_outlines(np.ascontiguousarray(image[part]), [(x - left, y - top)])
            found[entry.split].append(dice(weak > 0, mask[part]))
    if not found:
        raise DataError("The index has no outlines of mitoses to compare with.")
    return dict(found)
