"""Draws the pictures of docs/counting.md from drawn mitoses: windows and fields, an interval, and readers' agreement.

python docs/make_counting.py [FOLDER]
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, Rectangle

from wsi_minugan.counting.fields.placing import find_fields
from wsi_minugan.counting.interval import Found, PatientCounts, predict
from wsi_minugan.counting.windows import circle_of, find_windows, rectangle_of

MPP = 0.25
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"


def drawn_mitoses(seed: int = 5) -> np.ndarray:
    """Return mitoses that crowd in two places, x and y in px."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.normal((9_000, 8_000), 1_900, (45, 2)),
            rng.normal((20_000, 14_000), 1_400, (16, 2)),
            rng.uniform(0, 26_000, (30, 2)),
        ]
    )


def draw_windows(path: Path) -> None:
    """Draw the hot spots, a rectangle, and ten fields of both kinds over the same mitoses."""
    points = drawn_mitoses()
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
    circle, rectangle = circle_of(1.963, MPP), rectangle_of(1.963, MPP, 4 / 3)
    for k, w in enumerate(find_windows(points, circle, 2)):
        axes[0].add_patch(Circle((w.x_px, w.y_px), circle.radius_px, fill=False, color=ORANGE, lw=2))
        axes[0].annotate(
            f"{k + 1}: {w.mitoses}", (w.x_px, w.y_px - circle.radius_px - 300), color=ORANGE, ha="center"
        )
    w = find_windows(points, rectangle)[0]
    corner = w.x_px - rectangle.width_px / 2, w.y_px - rectangle.height_px / 2
    axes[0].add_patch(
        Rectangle(corner, rectangle.width_px, rectangle.height_px, fill=False, color=GREEN, lw=2, ls="--")
    )
    axes[0].set_title(f"Two hot spots of 1.96 mm²; rectangle 4:3: {w.mitoses}")
    for ax, mode in ((axes[1], "free"), (axes[2], "adjacent")):
        fields = find_fields(points, 500 / MPP, mode)
        for (x, y), n in zip(fields.centers_px, fields.counts, strict=True):
            ax.add_patch(Circle((x, y), 250 / MPP, fill=False, color=BLUE, lw=1.5))
            ax.annotate(str(n), (x, y), color=BLUE, ha="center", va="center", fontsize=8)
        proved = "proved the most" if fields.proved_optimal else f"at most {fields.upper_bound}"
        ax.set_title(f"Ten fields, {mode}: {fields.total} ({proved})")
    for ax in axes:
        ax.plot(*points.T, ".", color=GREY, ms=4)
        ax.set_aspect("equal")
        ax.set_xlim(-1_500, 27_500)
        ax.set_ylim(27_500, -1_500)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.plot([0, 4000], [26_500, 26_500], color="black", lw=2)
        ax.annotate("1 mm", (2000, 26_200), ha="center", fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_interval(path: Path) -> None:
    """Draw what 18 found mitoses can mean, on an even and on an uneven slide."""
    rng = np.random.default_rng(1)
    patients = [
        PatientCounts(3.0, int(rng.binomial(36, r)), int(rng.poisson(6)), int(rng.binomial(36, 1 - r)))
        for r in rng.beta(15, 5, 12)
    ]
    even = np.array([[6.0, 2.0]] * 30 + [[18.0, 2.0]])
    uneven = np.array(
        [[1.0, 2.0]] * 24 + [[9.0, 2.0], [14.0, 2.0], [18.0, 2.0], [12.0, 2.0], [16.0, 2.0], [20.0, 2.0]]
    )
    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for tiles, colour, name in ((even, BLUE, "even slide"), (uneven, ORANGE, "slide with a true hot spot")):
        found = predict(Found(18, 2.0, tiles), patients)
        low, high = found.interval()
        heights = np.bincount(found.numbers) / len(found.numbers)
        ax.step(np.arange(len(heights)), heights, where="mid", color=colour, label=f"{name}: {low} to {high}")
    ax.axvline(18, color=GREY, ls=":")
    ax.annotate("18 found", (18.3, ax.get_ylim()[1] * 0.93), color=GREY)
    ax.set_xlabel("true number of mitoses in the hot spot")
    ax.set_ylabel("probability")
    ax.set_xlim(0, 50)
    ax.legend(title="95 % interval", frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    draw_windows(folder / "counting-windows.png")
    draw_interval(folder / "counting-interval.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
