"""Where a review stands: its count, whether the score can still change, and what to look at next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_minugan.counting.models import Count
from wsi_minugan.counting.scores import tupac16_score
from wsi_minugan.outputs.objects import Marked
from wsi_minugan.review.result import Result, score_of

Verdict = Literal["accepted", "rejected"]
FIELDS_S = 0.5
"""While a reviewer decides, the count must follow at once; what is saved is looked for as long as a run's."""


@dataclass(frozen=True)
class Standing:
    """A review's state.

    Attributes
    ----------
    count : Count
        Of all that is not rejected.
    settled : bool
        Whether both scores stay what they are, whatever is decided on the objects that nobody has looked at.
    least, most : int
        Fewest and most mitoses that the hot spot can end with, by what is still open.
    queue : tuple of str
        UUIDs of the open objects; those that could change the score come first.
    pivotal : int
        How many of the queue's first lie in a hot spot whose score can still change.
    """

    count: Count
    settled: bool
    least: int
    most: int
    queue: tuple[str, ...]
    pivotal: int


def standing_of(
    result: Result, verdicts: Mapping[str, Verdict], added: Sequence[Marked], untouched: bool = False
) -> Standing:
    """Return where a review stands.

    The hot spot's count lies between that of the accepted alone and that of all that are not rejected, since a circle never
    holds fewer when a mitosis comes. Where both give the same scores, no open object can change them. Else an open object of
    the present hot spot can; the least certain is the first to look at.

    Parameters
    ----------
    result : Result
        The slide.
    verdicts : mapping of str to {"accepted", "rejected"}
        By UUID.
    added : sequence of Marked
        Mitoses that the reviewer added.
    untouched : bool
        Whether nothing was ever decided; the count is then the run's own, with the interval that the model's errors give it.

    Returns
    -------
    Standing
        Counts, scores, and the next object.
    """
    accepted = [m for m in result.mitoses if verdicts.get(m.id) == "accepted"]
    still_open = [m for m in result.mitoses if m.id not in verdicts]
    count = result.count if untouched else result.recount([*accepted, *still_open, *added], FIELDS_S)
    least = result.recount([*accepted, *added], fields=False)
    settled = _scores(count) == _scores(least)
    inside = _inside(count, still_open) if not settled else []
    first = sorted(inside, key=_certainty)
    members = {m.id for m in inside}
    rest = sorted((m for m in still_open if m.id not in members), key=_certainty)
    return Standing(
        count=count,
        settled=settled,
        least=least.hotspot.mitoses,
        most=count.hotspot.mitoses,
        queue=tuple(m.id for m in [*first, *rest]),
        pivotal=len(first),
    )


def _scores(count: Count) -> tuple[int | None, int]:
    """Return the scores that a hot spot's count stands for, also where it is mostly glass and count.json gives none."""
    scores = count.scores
    cuts = scores.nottingham_cuts
    nottingham = None if cuts is None else 1 + sum(round(scores.nottingham_count) > cut for cut in cuts)
    return nottingham, tupac16_score(round(scores.tupac16_count))


def _inside(count: Count, mitoses: Sequence[Marked]) -> list[Marked]:
    """Return the mitoses in a count's hot spot."""
    spot = count.hotspot
    if spot.center_x_px is None or spot.center_y_px is None:
        return []
    centres = np.array([m.centre_px for m in mitoses], np.float64).reshape(-1, 2)
    away = np.abs(centres - [spot.center_x_px, spot.center_y_px])
    # The centre is written with three digits.
    near: NDArray[np.bool_]
    if spot.shape == "rectangle" and spot.width_px and spot.height_px:
        near = np.all(away <= np.array([spot.width_px, spot.height_px]) / 2 + 0.01, axis=1)
    else:
        near = np.hypot(*away.T) <= spot.radius_px + 0.01
    return [m for m, within in zip(mitoses, near, strict=True) if within]


def _certainty(mitosis: Marked) -> tuple[float, float, float, float]:
    x, y = mitosis.centre_px
    score = score_of(mitosis)
    return abs(score - 0.5), score, y, x
