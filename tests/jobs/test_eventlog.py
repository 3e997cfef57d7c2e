"""log.jsonl holds whole lines only."""

import json
from pathlib import Path

import pytest
from minugan_jobs.state.event_log import EventLog


@pytest.mark.parametrize(
    "broken",
    ['{"time": "2026', '{"time": "2026"}', "\0" * 9000, '{"event": "' + "é" * 5000, ""],
    ids=["half", "no newline", "zeros", "long", "whole"],
)
@pytest.mark.parametrize("before", [0, 2])
def test_after_a_half_written_line_the_next_event_has_a_line_of_its_own(
    tmp_path: Path, broken: str, before: int
) -> None:
    log = EventLog(tmp_path)
    for k in range(before):
        log.write("earlier", number=k)
    with (tmp_path / "log.jsonl").open("ab") as f:
        f.write(broken.encode())
    log.write("next")
    log.write("last")
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events == ["earlier"] * before + ["next", "last"]
