"""The time that a training may take."""

from __future__ import annotations

import math
import time


class Clock:
    """Tells how much of a training's time has gone by: that of this call, and of those before it.

    Parameters
    ----------
    minutes : float, optional
        What this call may take; as long as it needs by default.

    Attributes
    ----------
    before_s : float
        What the calls before it took.
    """

    def __init__(self, minutes: float | None) -> None:
        self._limit_s = math.inf if minutes is None else 60 * minutes
        self._begun = time.monotonic()
        self.before_s = 0.0

    @property
    def spent_s(self) -> float:
        """What all calls took, this one included.

        Returns
        -------
        float
            Seconds.
        """
        return self.before_s + time.monotonic() - self._begun

    @property
    def over(self) -> bool:
        """Whether this call's time is up.

        Returns
        -------
        bool
            False without a limit.
        """
        return self.spent_s - self.before_s >= self._limit_s

    @property
    def share(self) -> float:
        """Share of all time that has gone by.

        Returns
        -------
        float
            0 to 1; 0 without a limit.
        """
        if math.isinf(self._limit_s):
            return 0.0
        return min(1.0, self.spent_s / max(1e-9, self.before_s + self._limit_s))
