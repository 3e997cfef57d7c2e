"""Cross-validation as in the paper (p. 3, 5 folds of patches), and with folds that keep a patient's images together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import nn

from minugan_training.augment import cut_patch
from minugan_training.fit import Progress, build_network, fit
from minugan_training.index import Entry
from minugan_training.matching import match
from minugan_training.metrics import dice
from minugan_training.sampling import Place, Pool
from minugan_training.settings import Augmentation, Experiment
from minugan_training.truth import MITOSES, NUCLEI, UNKNOWN, Sample
from wsi_minugan.errors import DataError
from wsi_minugan.geometry import Box
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.segmentation.classes import BACKGROUND, MITOSIS, Thresholds, class_map
from wsi_minugan.segmentation.objects import label_objects, measure_objects

By = Literal["patch", "patient"]
WINDOW_PX = 25
"""A centroid this near to the truth's is a hit (paper, p. 4: a window of 25 px, about 7 um)."""

_PLAIN = Augmentation(rotate=False)
_CUT = Thresholds(0.5, 0.5, 0.5)


class PatchScore(BaseModel):
    """What a model that never saw a patch does on it; None where a class is not labelled."""

    model_config = ConfigDict(frozen=True)

    fold: int
    dataset: str
    scanner: str
    patient: str
    image: str
    x_px: float
    y_px: float
    dice_mitoses: float | None
    dice_nuclei: float | None
    tp: int
    fp: int
    fn: int


class CrossValidation(BaseModel):
    """One experiment's scores on all its folds."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    settings: Experiment
    folds: int
    by: By
    patches: list[PatchScore]


def patches_of(pool: Pool, experiment: Experiment) -> list[Place]:
    """Return a place for each labelled mitosis: the patch around it holds it whole, moved inside where it lies at the image's edge."""
    half = experiment.patch_px / 2
    found = []
    for source in experiment.sources:
        for k, x, y in pool.mitoses_of(source) if source.at == "mitoses" else ():
            h, w = pool.sample(k).image.shape[:2]
            ax, ay = (float(np.clip(v, min(half, s / 2), max(s - half, s / 2))) for v, s in ((x, w), (y, h)))
            found.append((k, ax, ay))
    if not found:
        raise DataError(
            "The experiment draws no patches around mitoses, so there is nothing to cross-validate."
        )
    return found


def folds_of(
    places: Sequence[Place], entries: Sequence[Entry], count: int, by: By, seed: int
) -> list[list[int]]:
    """Return the patches of each fold, of sizes as equal as may be.

    Parameters
    ----------
    places : sequence of Place
        The patches.
    entries : sequence of Entry
        The index that they point into.
    count : int
        Number of folds.
    by : {"patch", "patient"}
        What a fold may not share with another.
    seed : int
        Of the shuffling.

    Raises
    ------
    DataError
        If there are fewer groups than folds.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for n, (k, _, _) in enumerate(places):
        groups[entries[k].patient if by == "patient" else str(n)].append(n)
    if len(groups) < count:
        raise DataError(f"There are {len(groups)} groups ('{by}') for {count} folds. Choose fewer folds.")
    order = np.random.default_rng(seed).permutation(len(groups))
    names = sorted(groups)
    folds: list[list[int]] = [[] for _ in range(count)]
    # The largest groups first, each to the smallest fold; equals in shuffled order.
    for name in sorted((names[k] for k in order), key=lambda g: -len(groups[g])):
        min(folds, key=len).extend(groups[name])
    return folds


def crossvalidate(
    experiment: Experiment, pool: Pool, out: Path, folds: int, by: By, progress: Progress | None = None
) -> CrossValidation:
    """Train and score every fold; folds that are done are not done again.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples.
    out : Path
        Gets a folder for each fold, and ``crossval.json``.
    folds : int
        Number of folds.
    by : {"patch", "patient"}
        What a fold may not share with another.
    progress : callable, optional
        Told of every logged step.
    """
    places = patches_of(pool, experiment)
    scores: list[PatchScore] = []
    for number, held_out in enumerate(folds_of(places, pool.entries, folds, by, experiment.seed)):
        folder = out / f"fold-{number}"
        done = folder / "scores.json"
        if not done.is_file():
            train = pool.only([p for n, p in enumerate(places) if n not in set(held_out)])
            network = build_network(experiment)
            network.load_state_dict(fit(experiment, train, folder, progress))
            rows = score_patches(network.eval(), experiment, pool, [places[n] for n in held_out], number)
            write_text(done, json.dumps([r.model_dump() for r in rows]) + "\n")
        scores += [PatchScore.model_validate(r) for r in json.loads(done.read_text("utf-8"))]
    result = CrossValidation(
        experiment=experiment.name, settings=experiment, folds=folds, by=by, patches=scores
    )
    write_text(out / "crossval.json", result.model_dump_json(indent=1) + "\n")
    return result


def score_patches(
    network: nn.Module, experiment: Experiment, pool: Pool, places: Sequence[Place], fold: int
) -> list[PatchScore]:
    """Return a network's scores on patches."""
    rows = []
    for k, image, labels in _cut(pool, places, experiment.patch_px):
        classes = classes_of(network, image)
        entry, place = pool.entries[places[k][0]], places[k]
        counts = _hits(classes, labels)
        rows.append(
            PatchScore(
                fold=fold, dataset=entry.dataset, scanner=entry.scanner, patient=entry.patient, image=entry.image,
                x_px=place[1], y_px=place[2], tp=counts[0], fp=counts[1], fn=counts[2],
                dice_mitoses=_overlap(classes == MITOSIS, labels[..., MITOSES]),
                dice_nuclei=_overlap(classes != BACKGROUND, labels[..., NUCLEI]),
            )
        )  # fmt: skip
    return rows


def _cut(
    pool: Pool, places: Sequence[Place], size_px: int
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    for k, (index, x, y) in enumerate(places):
        sample: Sample = pool.sample(index)
        yield k, *cut_patch(sample, (x, y), size_px, _PLAIN, np.random.default_rng(0))


@torch.inference_mode()
def classes_of(network: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the classes of a patch ``(h, w, 3)``, cleaned as on slides."""
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 127.5 - 1
    scores = torch.sigmoid(2 * network.logits(x))[0]  # type: ignore[operator]
    return class_map((255 * scores).round().to(torch.uint8).numpy(), _CUT)


def _overlap(found: NDArray[np.bool_], truth: NDArray[np.uint8]) -> float | None:
    known = truth != UNKNOWN
    return dice(found & known, truth == 1) if known.any() else None


def _hits(classes: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[int, int, int]:
    known = labels[..., MITOSES] != UNKNOWN
    found, truth = (_centres(m) for m in ((classes == MITOSIS) & known, labels[..., MITOSES] == 1))
    matched = match(found, truth, WINDOW_PX)
    return len(matched.pairs), len(matched.false_positives), len(matched.false_negatives)


def _centres(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    table = measure_objects(label_objects(mask), mask.astype(np.uint8), Box(0, 0, *mask.shape)).table
    area = np.maximum(1, table["area_px"])
    return np.stack([table["sum_x"] / area, table["sum_y"] / area], axis=1)
