"""What becomes of a run's mitoses where patches are not blended as a run does it: why `MinuganModel` keeps each patch's inner square.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/overlap.py

Two synthetic slides, patches every 192 px: the blended scores of `predict`, the plain mean of overlapping patches (TIAToolbox's engine
with patches as they are), and each patch's inner 192 px. Prints the mitoses of the first, and how many of them the others find.
"""

import sys

import numpy as np
from scipy import ndimage

from wsi_minugan import load_model, predict
from wsi_minugan.config import PATCH_PX, RunSettings
from wsi_minugan.geometry import Box
from wsi_minugan.pipeline.stages import CLASS_OF, object_thresholds
from wsi_minugan.segmentation.classes import MITOSIS
from wsi_minugan.segmentation.splitting import classes_of_image
from wsi_minugan.slides.synthetic import SyntheticSlide

STRIDE, HEIGHT, WIDTH = 192, 1300, 1500
MODEL = load_model()
THRESHOLDS = object_thresholds(MODEL.bundle, RunSettings())


def mitoses(scores: np.ndarray) -> np.ndarray:
    """Return where a run has mitoses, given these scores."""
    cuts = {value: THRESHOLDS.of(name, 0.25) for name, value in CLASS_OF.items()}
    return classes_of_image(scores, THRESHOLDS.classes, None, cuts) == MITOSIS


def mean_of_patches(image: np.ndarray, kept: int) -> np.ndarray:
    """Return the plain mean of the scores of patches, of which the inner `kept` px are used; white lies beyond the image."""
    edge = (PATCH_PX - kept) // 2
    wide = np.pad(image, ((edge, PATCH_PX), (edge, PATCH_PX), (0, 0)), constant_values=255)
    corners = [(y, x) for y in range(0, HEIGHT, STRIDE) for x in range(0, WIDTH, STRIDE)]
    patches = [wide[y : y + PATCH_PX, x : x + PATCH_PX] for y, x in corners]
    total, count = np.zeros((3, *wide.shape[:2])), np.zeros(wide.shape[:2])
    for (y, x), scores in zip(corners, predict(np.stack(patches), MODEL), strict=True):
        total[:, y : y + kept, x : x + kept] += scores[:, edge : edge + kept, edge : edge + kept]
        count[y : y + kept, x : x + kept] += 1
    mean = np.rint(total[:, :HEIGHT, :WIDTH] / count[:HEIGHT, :WIDTH]).astype(np.uint8)
    return np.ascontiguousarray(mean)


def main() -> None:
    for seed in (4, 5):
        image = SyntheticSlide(WIDTH, HEIGHT, seed=seed, mitoses=16).draw(Box(0, 0, HEIGHT, WIDTH))
        labels, count = ndimage.label(mitoses(predict(image, MODEL)))
        found = {
            name: np.count_nonzero(np.unique(labels[mitoses(mean_of_patches(image, kept))]))
            for name, kept in (("plain mean", PATCH_PX), ("inner square", STRIDE))
        }
        sys.stdout.write(f"slide {seed}: {count} mitoses of a run, of which are found: {found}\n")


if __name__ == "__main__":
    main()
