"""Staging from a real web server that breaks off in the middle of a slide."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from minugan_jobs.staging import StagedSlide, Staging, open_staging
from minugan_jobs.state.ledger import SlideRecord

from wsi_minugan.slides.inputs import SlideInput

WHOLE = bytes(range(256)) * 400


class BreaksOff(http.server.BaseHTTPRequestHandler):
    """Promises a whole slide of any name; of "broken.svs" only half comes."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(WHOLE)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(WHOLE[: len(WHOLE) // 2] if "broken" in self.path else WHOLE)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def next_of(staging: Staging) -> StagedSlide:
    until = time.monotonic() + 120
    while (found := staging.take()) is None:
        assert time.monotonic() < until, "nothing comes any more"
        time.sleep(0.02)
    return found


def test_a_server_that_breaks_off_midway_fails_that_slide_and_the_next_one_comes(
    tmp_path: Path, address: str
) -> None:
    slides = [SlideInput(n, Path(f"{n}.svs"), url=f"{address}/{n}.svs") for n in ("broken", "whole")]
    batch = [SlideRecord(s, "pending", "", 0, "") for s in slides]
    with open_staging(batch, tmp_path / "copies", "run", 1, stall_s=10) as staging:
        broken = next_of(staging)
        assert broken.error.startswith(f"{address}/broken.svs cannot be copied to ")
        assert "Check the address, the network and the disk, then retry the failed slides" in broken.error
        assert not [p for p in (tmp_path / "copies").rglob("*broken*") if p.is_file()]
        staging.release("broken")
        whole = next_of(staging)
        assert whole.error == ""
        assert whole.record.slide.path.read_bytes() == WHOLE
        assert staging.exhausted
