"""The paper's pictures of patches: Figures 6, 9 and 10. They show the data, so they are for the reader's own disk only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minugan_training.data.labels import MITOSES, NUCLEI
from minugan_training.evaluation.patches import PatchScore, classes_of
from minugan_training.figures import new_figure, save_figure
from minugan_training.fitting.checkpoint import load_weights, read_weights
from minugan_training.fitting.state import build_network
from minugan_training.paper.held_out import FINAL
from minugan_training.paper.tables import BASELINES, Results
from minugan_training.sampling.augmentation import cut_patch
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Augmentation, Experiment
from wsi_minugan.errors import DataError
from wsi_minugan.segmentation.classes import MITOSIS, NUCLEUS
from wsi_minugan.segmentation.objects import label_objects

_WITHOUT_FOCAL, _WITH_FOCAL = "table2-d2-g0", "table2-d2-g2"
"""The paper's configurations 1 and 4."""

_FALSE_POSITIVE, _FALSE_NEGATIVE = (255, 255, 0), (255, 140, 0)


def draw_pictures(results: Results, pool: Pool, folder: Path, count: int) -> list[Path]:
    """Draw the pictures that there are results for: image, truth, and a column for each experiment's prediction.

    Parameters
    ----------
    results : Results
        What was run.
    pool : Pool
        Samples.
    folder : Path
        Of the results; the pictures go there too.
    count : int
        Patches in each picture.

    Returns
    -------
    list of Path
        The files.
    """
    drawn = []
    for number, names in ((6, (_WITHOUT_FOCAL, _WITH_FOCAL)), (9, (results.best, *BASELINES))):
        there = {k: results.crossval[k] for k in names if k in results.crossval}
        if there and (number == 9 or len(there) == len(names)):
            first = next(iter(there.values()))
            columns = {
                k: (c.settings, {_key(p): folder / k / f"fold-{p.fold}" for p in c.patches})
                for k, c in there.items()
            }
            chosen = _spread(first.patches, count)
            drawn.append(_draw(chosen, columns, pool, folder / f"figure-{number}.png"))
    for name, h in results.heldout.items():
        columns = {name: (h.settings, {_key(p): folder / name / FINAL for p in h.patches})}
        chosen = _spread(sorted(h.patches, key=lambda p: p.dataset), count)
        drawn.append(_draw(chosen, columns, pool, folder / name / "figure-10.png"))
    return drawn


def _spread(patches: Sequence[PatchScore], count: int) -> list[PatchScore]:
    return [patches[k] for k in np.linspace(0, len(patches) - 1, count).astype(int)]


def _key(p: PatchScore) -> tuple[str, str, tuple[int, int], float, float]:
    return *_sample_key(p), p.x_px, p.y_px


def _sample_key(p: PatchScore) -> tuple[str, str, tuple[int, int]]:
    return p.dataset, p.image, p.region_px


def _draw(
    patches: Sequence[PatchScore],
    columns: Mapping[str, tuple[Experiment, Mapping[Any, Path]]],
    pool: Pool,
    path: Path,
) -> Path:
    """Draw a row for each patch; each column's network is that of the fold which never saw it."""
    index = {(e.dataset, e.image, (e.x_px, e.y_px)): k for k, e in enumerate(pool.entries)}
    figure = new_figure(2.4 * (2 + len(columns)))
    figure.set_size_inches(2.4 * (2 + len(columns)), 2.4 * len(patches))
    grid = figure.subplots(len(patches), 2 + len(columns), squeeze=False)
    for axes, patch in zip(grid, patches, strict=True):
        size_px = next(iter(columns.values()))[0].patch_px
        if _sample_key(patch) not in index:
            raise DataError(
                f"The index has no image {patch.image} of {patch.dataset}. Give the one that the results were made with."
            )
        image, truth = _patch(pool, index[_sample_key(patch)], patch, size_px)
        _show(axes[0], image, "image")
        _show(axes[1], _painted(truth), "truth")
        for ax, (name, (experiment, runs)) in zip(axes[2:], columns.items(), strict=True):
            if _key(patch) not in runs:
                raise DataError(
                    f"{name} was run on other patches than {next(iter(columns))}. Run both alike."
                )
            found = _predicted(experiment, runs[_key(patch)], image)
            _show(ax, _painted(found), name)
            _box(ax, found == MITOSIS, truth == MITOSIS, _FALSE_POSITIVE)
            _box(ax, truth == MITOSIS, found == MITOSIS, _FALSE_NEGATIVE)
    return save_figure(figure, path)


def _patch(
    pool: Pool, index: int, patch: PatchScore, size_px: int
) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Return a patch's image and the classes of its truth."""
    place, plain = (patch.x_px, patch.y_px), Augmentation(rotate=False)
    image, labels = cut_patch(pool.sample(index), place, size_px, plain, np.random.default_rng(0))
    nuclei = np.where(labels[..., NUCLEI] == 1, NUCLEUS, 0)
    return image, np.where(labels[..., MITOSES] == 1, MITOSIS, nuclei)


def _predicted(experiment: Experiment, run: Path, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    network = build_network(experiment)
    load_weights(network, read_weights(run / "weights.safetensors"))
    return classes_of(network.eval(), image)


def _show(axes: Any, picture: NDArray[np.uint8], title: str) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def _painted(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return classes in the paper's colours: nuclei red, mitoses green."""
    colours = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0)], np.uint8)
    return np.asarray(colours[classes], np.uint8)


def _box(
    axes: Any, objects: NDArray[np.bool_], others: NDArray[np.bool_], colour: tuple[int, int, int]
) -> None:
    """Box the objects that share no pixel with the other mask."""
    from matplotlib.patches import Rectangle

    labels = label_objects(objects)
    for k in range(1, int(labels.max()) + 1):
        if not (others & (labels == k)).any():
            ys, xs = np.nonzero(labels == k)
            size = (float(np.ptp(xs)) + 7, float(np.ptp(ys)) + 7)
            edge = tuple(v / 255 for v in colour)
            axes.add_patch(
                Rectangle((xs.min() - 3, ys.min() - 3), *size, fill=False, edgecolor=edge, linewidth=1.5)
            )
