"""Make the pictures of docs/review.md: the viewer on the demo's synthetic slide, in Chromium, as its test drives it.

make viewer                                      # once, for the packages that drive the browser
python docs/scripts/make_review_pictures.py
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "wsi_minugan" / "viewer" / "frontend" / "e2e" / "review.mjs"
PICTURES = ROOT / "docs" / "pictures"
NAMES = ("whole-slide", "next", "decided", "keys")
HOTSPOT_MM2 = "0.15"
"""The demo's slide is small, and its hot spot should be seen to lie somewhere on it."""
COMMAND = [sys.executable, "-c", "from minugan_cli.main import main; main()"]


def main() -> None:
    """Run the slide, review it in the browser, and keep four of the screens."""
    with tempfile.TemporaryDirectory() as folder:
        slide, out, screens = Path(folder) / "demo.tiff", Path(folder) / "out", Path(folder) / "screens"
        screens.mkdir()
        write_slide(slide, SyntheticSlide(3000, 3000, 7))
        run = ["run", str(slide), "-o", str(out), "--hotspot-mm2", HOTSPOT_MM2, "--workers", "1", "--quiet"]
        subprocess.run([*COMMAND, *run], check=True)
        review(out, screens)
        for name in NAMES:
            shutil.copyfile(screens / f"{name}.jpg", PICTURES / f"review-{name}.jpg")


def review(out: Path, screens: Path) -> None:
    """Open a run in the viewer, and take the test's script through a whole review of it."""
    view = [*COMMAND, "view", str(out), "--no-browser", "--reviewer", "ann"]
    with subprocess.Popen(view, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            subprocess.run(["node", str(SCRIPT), address, str(screens)], check=True)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
