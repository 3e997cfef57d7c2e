"""The viewer's server: for one person on this machine, read-only but for reviews, and deaf to everything else."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
import requests

from wsi_minugan.geometry import Box
from wsi_minugan.review.people import folder_name
from wsi_minugan.slides.opening import open_slide

FOLDER = "synthetic slide"


class Client:
    """A browser that has the token.

    Parameters
    ----------
    address : str
        What `wsi-minugan view` printed.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.root = f"{parts.scheme}://{parts.netloc}"
        self.session = requests.Session()
        assert self.session.get(address, timeout=60).url == f"{self.root}/"

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.root}/{path}", timeout=120)

    def send(self, method: str, path: str, content: object, **headers: str) -> requests.Response:
        own = {"Origin": self.root, "Content-Type": "application/json"} | headers
        return self.session.request(
            method, f"{self.root}/{path}", data=json.dumps(content), headers=own, timeout=120
        )


@pytest.fixture(scope="module")
def looking(finished: Path, serve: Callable[..., str]) -> Client:
    """Return a browser on the synthetic slide's viewer, for tests that save nothing."""
    return Client(serve(finished))


@pytest.fixture
def client(out: Path, serve: Callable[..., str]) -> Client:
    """Return a browser on a copy of its own."""
    return Client(serve(out, "--reviewer", "ann"))


def test_only_who_has_the_token_and_asks_this_machine_is_answered(looking: Client) -> None:
    client = looking
    assert urlsplit(client.root).hostname == "127.0.0.1"
    for path in ("", "slides", "s/0", "main.js", "s/0/tile/1/0_0", "?token=wrong", "nothing"):
        answer = requests.get(f"{client.root}/{path}", timeout=60)
        assert answer.status_code == 403, path
        assert "wsi-minugan view" in answer.json()["error"]
    # A page elsewhere that had its name lead here (DNS rebinding), or that sends a form.
    assert (
        client.session.get(f"{client.root}/slides", headers={"Host": "evil.example"}, timeout=60).status_code
        == 403
    )
    draft = {"verdicts": {}, "added": []}
    for headers in ({"Origin": "http://evil.example"}, {"Content-Type": "text/plain"}, {"Origin": "null"}):
        assert client.send("POST", "s/0/standing", draft, **headers).status_code == 403
    assert client.send("POST", "s/0/standing", draft).status_code == 200


def test_every_answer_forbids_what_the_page_does_not_need(looking: Client) -> None:
    for path in ("", "main.js", "slides", "nothing"):
        headers = looking.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    cookie = next(iter(looking.session.cookies))
    assert cookie.has_nonstandard_attr("HttpOnly")


def test_a_tile_of_the_finest_level_is_the_slides_pixels(looking: Client, slide: Path) -> None:
    told = looking.get("s/0").json()
    data = looking.get(f"s/0/tile/{told['max_level']}/1_1").content
    tile = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    reader = open_slide(slide)
    pixels = reader.read_level(0, Box(512, 512, 512, 512))
    reader.close()
    assert tile.shape == pixels.shape
    assert np.abs(tile.astype(int) - pixels).mean() < 3
    small = cv2.imdecode(np.frombuffer(looking.get("s/0/tile/8/0_0").content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert small.shape == (163, 188, 3)  # 1300 x 1500 px, eight times smaller
    corner = cv2.imdecode(
        np.frombuffer(looking.get("s/0/tile/11/2_2").content, np.uint8), cv2.IMREAD_COLOR_RGB
    )
    assert corner.shape == (1300 - 1024, 1500 - 1024, 3)


def test_masks_and_nuclei_come_as_the_run_wrote_them(looking: Client) -> None:
    told = looking.get("s/0").json()
    assert told["masks"] == ["classes", "mitosis_score", "coverage"]
    finest = told["mask_levels"] - 1
    data = np.frombuffer(looking.get(f"s/0/mask/classes/{finest}/1_1").content, np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert mask.shape == (512, 512, 4)
    assert (mask[..., 3] > 0).any()
    points = np.frombuffer(looking.get("s/0/nuclei/points").content, "<f4").reshape(-1, 2)
    assert len(points) == told["nuclei"] > 100
    assert (points >= 0).all()
    assert (points <= [1500, 1300]).all()
    lines = np.frombuffer(looking.get("s/0/nuclei/outlines/0_0").content, "<f4").reshape(-1, 2, 2)
    assert len(lines) > 5 * len(points)
    assert np.abs(lines).max() < 2048 + 100


@pytest.mark.parametrize(
    "path",
    [
        "s/1",
        "s/0/tile/99/0_0",
        "s/0/tile/11/9_9",
        "s/0/mask/nuclei/0/0_0",
        "s/0/mask/classes/9/0_0",
        "s/0/nuclei/outlines/7_7",
        "s/0/crop/99999_5",
    ],
)
def test_what_there_is_not_is_told_in_a_sentence(looking: Client, path: str) -> None:
    answer = looking.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"].endswith(".")


@pytest.mark.parametrize(
    "path", ["../manifest.json", "s/0/../../etc/passwd", "static/main.js", "s/x", "s/-1"]
)
def test_no_other_file_is_served(looking: Client, path: str) -> None:
    assert looking.get(path).status_code == 404


def test_decisions_are_counted_at_once_and_saved_when_told(client: Client, out: Path) -> None:
    told = client.get("s/0").json()
    first, second = (m["id"] for m in told["mitoses"][:2])
    mark = {"id": str(uuid.uuid4()), "x": 750.0, "y": 650.0}
    draft = {
        "verdicts": {first: "rejected", second: "accepted"},
        "added": [mark, mark | {"id": str(uuid.uuid4())}],
    }
    standing = client.send("POST", "s/0/standing", draft).json()
    assert standing["count"]["mitoses"] == len(told["mitoses"]) + 1
    assert standing["least"] == 3
    assert first not in standing["queue"]
    assert not (out / FOLDER / "reviews").exists()
    saved = client.send("PUT", "s/0/review", draft | {"revision": 0}).json()
    assert saved["revision"] == 1
    again = client.get("s/0").json()
    assert again["draft"]["verdicts"] == draft["verdicts"]
    assert {a["id"] for a in again["draft"]["added"]} == {a["id"] for a in draft["added"]}
    # Files keep hundredths of a pixel, so the hot spot's centre may move by as much.
    for name in ("settled", "least", "most", "queue", "pivotal"):
        assert again["standing"][name] == standing[name]
    for name in ("mitoses", "scores"):
        assert again["standing"]["count"][name] == standing["count"][name]
    behind = client.send("PUT", "s/0/review", draft | {"revision": 0})
    assert behind.status_code == 409
    assert "another window" in behind.json()["error"]
    assert (out / FOLDER / "reviews" / folder_name("ann") / "index.csv").is_file()


@pytest.mark.parametrize(
    "draft",
    [
        [],
        {"verdicts": {"no uuid": "accepted"}},
        {"verdicts": {str(uuid.uuid4()): "perhaps"}},
        {"added": [{"id": str(uuid.uuid4()), "x": -5, "y": 5}]},
        {"added": [{"id": str(uuid.uuid4()), "x": 1e400, "y": 5}]},
        {"added": [{"id": "../x", "x": 5, "y": 5}]},
        {"added": [], "more": 1},
    ],
)
def test_what_is_no_decision_changes_nothing(looking: Client, finished: Path, draft: object) -> None:
    answer = looking.send("PUT", "s/0/review", draft if isinstance(draft, list) else draft | {"revision": 0})
    assert answer.status_code == 400
    assert not (finished / FOLDER / "reviews").exists()


def test_without_the_slide_all_else_is_shown(out: Path, tmp_path: Path, serve: Callable[..., str]) -> None:
    (tmp_path / "moved").mkdir()
    (out / FOLDER).rename(tmp_path / "moved" / FOLDER)
    client = Client(serve(tmp_path / "moved"))
    told = client.get("s/0").json()
    assert "--slide" in told["no_pixels"]
    assert told["mitoses"]
    assert client.get("s/0/tile/0/0_0").status_code == 400
    assert client.send("PUT", "s/0/review", {"revision": 0}).json()["revision"] == 1


def test_a_slide_that_cannot_be_shown_does_not_hide_the_others(out: Path, serve: Callable[..., str]) -> None:
    (out / "another").mkdir()
    (out / "another" / "manifest.json").write_text("no manifest")
    slides = Client(serve(out)).get("slides").json()
    assert [s["slide_id"] for s in slides] == ["another", FOLDER]
    assert "no finished result" in slides[0]["problem"]
    assert slides[1]["problem"] == ""


def test_what_holds_no_finished_slide_is_told(run_command, tmp_path: Path) -> None:
    done = run_command("view", tmp_path, "--no-browser")
    assert done.returncode == 2
    assert "no finished slide" in done.stderr
