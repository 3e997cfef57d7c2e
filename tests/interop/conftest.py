"""A finished slide for tests that open it elsewhere: made here, or made before and named."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest) -> Path:
    """Return a result folder; WSI_MINUGAN_RESULT names one where this environment cannot make one (it has no torch)."""
    named = os.environ.get("WSI_MINUGAN_RESULT")
    if named:
        return Path(named)
    finished, slide = request.getfixturevalue("finished"), request.getfixturevalue("slide")
    return finished / slide.stem
