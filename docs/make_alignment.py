"""Draws docs/alignment.png: drawn tissue, and the same with the outlines of the class map of a run over it.

python docs/make_alignment.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import zarr

from wsi_minugan.geometry import Box
from wsi_minugan.slides.opening import open_slide
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

SIDE_PX, ENLARGED = 256, 2


def main() -> None:
    drawing = SyntheticSlide(1500, 1300, seed=3, mitoses=8)
    x, y = drawing.mitoses_xy_px[0].astype(int) - SIDE_PX // 2
    box = Box(int(y), int(x), SIDE_PX, SIDE_PX)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "s.tiff", Path(folder) / "out"
        write_slide(path, drawing)
        code = "from minugan_cli.main import main; main()"
        subprocess.run([sys.executable, "-c", code, "run", str(path), "-o", str(out), "--quiet"], check=True)
        array = zarr.open_array(out / "s" / "masks.zarr" / "labels" / "classes" / "0", mode="r")
        classes = np.asarray(array[box.y_px : box.y_end_px, box.x_px : box.x_end_px])
        image = open_slide(path).read_level(0, box)
    large = cv2.resize(image, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)
    outlined = large.copy()
    for value, colour in ((1, (200, 40, 40)), (2, (0, 160, 40))):
        mask = cv2.resize(
            (classes == value).astype(np.uint8),
            None,
            fx=ENLARGED,
            fy=ENLARGED,
            interpolation=cv2.INTER_NEAREST,
        )
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, contours, -1, colour, 1)
    picture = np.concatenate([large, np.full((large.shape[0], 8, 3), 255, np.uint8), outlined], axis=1)
    cv2.imwrite(str(Path(__file__).with_name("alignment.png")), picture[..., ::-1])


if __name__ == "__main__":
    main()
