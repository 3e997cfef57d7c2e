"""report.html in a real Chromium: by keyboard, on paper, and without a complaint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.test_report import finished, written
from wsi_minugan.outputs.models import SlideState

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LONG = "a name as scanners make it from a bar code 0123456789_0123456789_0123456789_0123456789_2026-11-26T18-00-00"


def test_the_report_sorts_filters_fits_on_paper_and_is_accessible(
    tmp_path: Path, browse: Callable[..., dict[str, Any]]
) -> None:
    slides = [
        finished(
            tmp_path, "calm", mitoses=3, hotspot_mitoses_per_mm2=1.0, nuclei=1_234_567, tissue_mm2=321.0
        ),
        finished(
            tmp_path,
            LONG,
            mitoses=120,
            hotspot_mitoses_per_mm2=31.4,
            hotspot_mitoses=61,
            hotspot_area_mm2=1.96,
        ),
        finished(tmp_path, "warned", ("The stain is unlike that of the training data. " * 5,), mitoses=20),
        SlideState(slide_id="broke", path="", status="failed", error="It broke. " * 30),
    ]
    written(tmp_path, *slides)
    seen = browse("report.mjs", (tmp_path / "report.html").as_uri())
    assert seen["first"] == ["broke", "warned", LONG, "calm"]
    assert seen["up"] == ["calm", "warned", LONG, "broke"]
    assert seen["down"][-3:] == [LONG, "warned", "calm"]
    assert seen["sorted"] == "descending"
    assert (seen["filtered"], seen["cards"], seen["shown"]) == (["warned"], 1, "1 of 4")
    assert (seen["serious"], seen["complaints"]) == ([], [])
    assert (seen["wide"], seen["printed"]) == (0, 0)
    assert seen["requests"] == [(tmp_path / "report.html").as_uri()]
