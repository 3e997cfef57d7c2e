"""Make docs/readme.png from the demo's synthetic slide: the slide with its hot spot, and a part of it with outlines.

python docs/scripts/make_readme_picture.py
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan import Result, analyze, open_slide
from wsi_minugan.geometry import Box
from wsi_minugan.slides.synthetic import SyntheticSlide, write_slide

OUT = Path(__file__).parents[1] / "readme.png"
HEIGHT_PX, PART_PX = 560, 200
MITOSIS, NUCLEUS, HOTSPOT, WHITE = (0, 170, 50), (215, 40, 40), (255, 140, 0), (255, 255, 255)


def part_with_outlines(result: Result, slide: Path, at: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the tissue around a place, enlarged, with the outlines of what was found."""
    left, top = (round(v) - PART_PX // 2 for v in at)
    reader = open_slide(slide)
    pixels = reader.read_level(0, Box(top, left, PART_PX, PART_PX))
    reader.close()
    factor = HEIGHT_PX / PART_PX
    picture = cv2.resize(pixels, (HEIGHT_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
    for table, colour in ((result.nuclei, NUCLEUS), (result.mitoses, MITOSIS)):
        for shape in table.cx[left : left + PART_PX, top : top + PART_PX].geometry:
            ring = np.array(shape.exterior.coords) if shape.geom_type == "Polygon" else np.zeros((0, 2))
            points = np.rint((ring - [left, top]) * factor * 16).astype(np.int32)
            cv2.polylines(picture, [points], True, colour, 2, cv2.LINE_AA, 4)
    return picture


def main() -> None:
    """Analyse the demo's slide and draw."""
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "demo.tiff"
        write_slide(slide, SyntheticSlide(3000, 3000, 7))
        result = analyze(slide)
        whole = cv2.resize(result.overview(), (HEIGHT_PX, HEIGHT_PX), interpolation=cv2.INTER_AREA)
        best = result.mitoses.sort_values("area_um2").geometry.iloc[-1].centroid
        part = part_with_outlines(result, slide, np.array([best.x, best.y]))
        gap = np.full((HEIGHT_PX, 16, 3), WHITE, np.uint8)
        picture = np.concatenate([whole, gap, part], axis=1)
    cv2.imwrite(str(OUT), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
