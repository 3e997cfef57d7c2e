"""What makes a slide's work be done again, and what does not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from minugan_jobs.run import _request
from minugan_jobs.tasks import Job
from minugan_jobs.worker import work_key

from wsi_minugan.config import RunSettings
from wsi_minugan.minugan.bundle import BUNDLED, load_bundle
from wsi_minugan.slides.inputs import SlideInput

DEFAULT = BUNDLED / "default"


def keys(model: Path = DEFAULT, **flags: Any) -> tuple[str, str]:
    """Return a slide's keys before and after it is opened."""
    settings, bundle = RunSettings(**flags), load_bundle(model)
    job = Job(SlideInput("s", Path("/s.svs")), Path("/out/s"), settings, model, "")
    return work_key(job, settings, "mark", bundle), _request(settings, bundle)


def test_the_same_model_under_another_name_or_in_another_place_does_nothing_again(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT, tmp_path / "mine")
    assert keys(model=DEFAULT) == keys(tmp_path / "mine")
    settings = RunSettings(model=str(tmp_path / "mine"))
    assert settings.results_key() == RunSettings().results_key()


@pytest.mark.parametrize(
    "flags", [{"stride_px": 128}, {"hotspot_mm2": 2.0}, {"nuclei": False}, {"stain": "none"}]
)
def test_a_setting_that_decides_results_is_in_the_key(flags: dict[str, Any]) -> None:
    assert not set(keys(**flags)) & set(keys())


@pytest.mark.parametrize("flags", [{"workers": 7}, {"batch_size": 3}, {"quiet": True}])
def test_a_setting_that_says_how_results_are_made_is_not(flags: dict[str, Any]) -> None:
    assert keys(**flags) == keys()
