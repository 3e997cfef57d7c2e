"""How long tests of whatever anybody hands in go on.

A few examples each; `make test` takes the same ones each time, so that its result depends on the code alone. `pytest` draws
others, with `MINUGAN_FUZZ_S=600` for ten minutes each.
"""

import functools
import os
import time
from collections.abc import Callable

from hypothesis import HealthCheck, settings

FUZZ_S = float(os.environ.get("MINUGAN_FUZZ_S", "0"))


def examples(number: int) -> settings:
    """Return how a test looks for values: so many of them, each as slow as it is."""
    return settings(
        max_examples=200 if FUZZ_S else number,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


def for_a_while(test: Callable[..., None]) -> Callable[..., None]:
    """Repeat a test of drawn values until its time is over: once, where none is given."""

    @functools.wraps(test)
    def repeated(*arguments: object, **named: object) -> None:
        end = time.monotonic() + FUZZ_S
        test(*arguments, **named)
        while time.monotonic() < end:
            test(*arguments, **named)

    return repeated
