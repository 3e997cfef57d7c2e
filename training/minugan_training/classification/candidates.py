"""Candidates: the places at which a second stage learns to tell mitotic figures from what looks like them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from minugan_training.data.index import Entry, check_scanners, points_of
from minugan_training.data.labels import IGNORE, MITOSES, Sample, enlargement, load_sample, mitosis_truth
from minugan_training.fitting.mining import mitosis_score
from wsi_minugan.errors import DataError
from wsi_minugan.minugan import second_stage
from wsi_minugan.outputs.atomic import atomic_path

CROP_PX = 128
"""Side of the crops that are kept in memory; a turned and enlarged field fits in."""
_NEAR_UM = 7.5
_DARK_UM = 1.0

MITOSIS, LOOK_ALIKE, PEAK, DARK = 0, 1, 2, 3
"""Kinds: a labelled mitosis; a nucleus that readers proposed and refused; what the first stage proposes; a dark nucleus."""


@dataclass(frozen=True)
class Candidates:
    """Places with what is known of them.

    Attributes
    ----------
    crops : ndarray of uint8, shape (n, 128, 128, 3)
        RGB around each, at the model's resolution.
    patient, scanner, dataset : ndarray of str, shape (n,)
        Whose it is, and of which scanner and data set.
    xy_px : ndarray of float, shape (n, 2)
        Place on the image at the model's resolution; the centre of pixel 0 is at 0.5.
    target : ndarray of float, shape (n,)
        Probability of a mitosis, by the readers' votes.
    kind : ndarray of uint8, shape (n,)
        What the place is.
    score : ndarray of float, shape (n,)
        The first stage's score there, 0 to 1.
    """

    crops: NDArray[np.uint8]
    patient: NDArray[np.str_]
    scanner: NDArray[np.str_]
    dataset: NDArray[np.str_]
    xy_px: NDArray[np.float64]
    target: NDArray[np.float64]
    kind: NDArray[np.uint8]
    score: NDArray[np.float64]


def find_candidates(
    root: Path, entries: Sequence[Entry], network: nn.Module, least_score: float, dark_per_mm2: float
) -> Candidates:
    """Return the candidates of images with known mitoses.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index; images whose mitoses are unknown have none.
    network : Module
        The first stage, in eval mode.
    least_score : float
        What it proposes with at least this score is a candidate. A mitosis or look-alike that it proposes lies where it does
        so, as it will in use, and not at the reader's mark.
    dark_per_mm2 : float
        So many of the darkest nuclei besides, whatever the first stage says.

    Returns
    -------
    Candidates
        Of all images.

    Raises
    ------
    DataError
        If there are none.
    """
    network.eval()
    rows: list[tuple[NDArray[np.uint8], int, float, float, float, int, float]] = []
    for k, entry in enumerate(entries):
        if entry.mitoses == "unknown":
            continue
        sample = load_sample(root, entry)
        score = _score(network, sample)
        smooth = cv2.GaussianBlur(score, (0, 0), 2)
        proposed = _proposed(score, least_score)
        for x, y, target, kind in _places(root, entry, sample, proposed, dark_per_mm2):
            at = smooth[min(int(y), smooth.shape[0] - 1), min(int(x), smooth.shape[1] - 1)]
            near = smooth[max(0, int(y) - 12) : int(y) + 13, max(0, int(x) - 12) : int(x) + 13]
            value = float(near.max(initial=at)) if kind == MITOSIS else float(at)
            rows.append((_crop(sample.image, x, y), k, x, y, target, kind, value))
    if not rows:
        raise DataError(
            "These images hold no candidates: no labelled mitosis, no look-alike, and no dark nucleus."
        )
    crops, entry_, x_, y_, target_, kind_, score_ = zip(*rows, strict=True)
    of = [entries[k] for k in entry_]
    return Candidates(
        np.stack(crops),
        np.array([e.patient for e in of]),
        np.array([e.scanner for e in of]),
        np.array([e.dataset for e in of]),
        np.array([x_, y_], np.float64).T,
        np.array(target_),
        np.array(kind_, np.uint8),
        np.array(score_),
    )


def save_candidates(path: Path, found: Candidates) -> None:
    """Write candidates as a NumPy archive.

    Parameters
    ----------
    path : Path
        File to write; missing folders are made.
    found : Candidates
        What to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as f:
        np.savez(f, **{c.name: getattr(found, c.name) for c in fields(found)})


def load_candidates(path: Path) -> Candidates:
    """Read what `save_candidates` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Candidates
        The content.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return Candidates(**{c.name: data[c.name] for c in fields(Candidates)})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise DataError(
            f"The candidates {path} cannot be read: {e}. Make them with: minugan-train candidates"
        ) from e


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of several splits as one.

    Parameters
    ----------
    parts : sequence of Candidates
        At least one.

    Returns
    -------
    Candidates
        In the order of the parts.
    """
    if len(parts) == 1:
        return parts[0]
    return Candidates(
        **{c.name: np.concatenate([getattr(p, c.name) for p in parts]) for c in fields(Candidates)}
    )


def chosen(of: Candidates, which: NDArray[np.integer] | NDArray[np.bool_]) -> Candidates:
    """Return some of the candidates.

    Parameters
    ----------
    of : Candidates
        All of them.
    which : ndarray of int or bool
        Their indices, or one value for each.

    Returns
    -------
    Candidates
        In the order of the indices.
    """
    return Candidates(**{c.name: getattr(of, c.name)[which] for c in fields(Candidates)})


def without_scanners(found: Candidates, scanners: Sequence[str]) -> Candidates:
    """Return the candidates that are of other scanners.

    Parameters
    ----------
    found : Candidates
        Of any scanners.
    scanners : sequence of str
        As the index names them.

    Returns
    -------
    Candidates
        In the same order.

    Raises
    ------
    DataError
        If a scanner has no candidates, as one whose name is misspelt.
    """
    if not scanners:  # a choice of all would copy all crops
        return found
    check_scanners(scanners, found.scanner.tolist(), "candidate")
    return chosen(found, ~np.isin(found.scanner, scanners))


def _score(network: nn.Module, sample: Sample) -> NDArray[np.float32]:
    """Return the first stage's score of a whole image; a border where no window fits is mirrored."""
    h, w = sample.image.shape[:2]
    padded = np.pad(sample.image, ((0, -h % 32), (0, -w % 32), (0, 0)), mode="symmetric")
    whole = Sample(padded, np.zeros((1, 1, 3), np.uint8), sample.mpp)
    out = np.zeros((h, w), np.float32)
    side = 480  # of 512: a margin of 16 px has no say
    ph, pw = padded.shape[:2]
    for top in range(0, h, side):
        for left in range(0, w, side):
            y, x = max(0, min(top - 16, ph - 512)), max(0, min(left - 16, pw - 512))
            window = padded[y : y + 512, x : x + 512]
            part = mitosis_score(network, Sample(window, whole.labels, sample.mpp), "fp32")
            b, r = min(h, top + side), min(w, left + side)
            out[top:b, left:r] = part[top - y : b - y, left - x : r - x]
    return out


def _proposed(score: NDArray[np.float32], least_score: float) -> NDArray[np.float64]:
    """Return the centres ``(n, 2)`` of what the first stage proposes, as it does in use."""
    found = second_stage.find_candidates(
        np.rint(255 * score).astype(np.uint8), least_score, share_of_peak=second_stage.SHARE_OF_PEAK
    )
    return np.array([c.centre_px for c in found], np.float64).reshape(-1, 2)


def _places(
    root: Path, entry: Entry, sample: Sample, proposed: NDArray[np.float64], dark_per_mm2: float
) -> list[tuple[float, float, float, int]]:
    factor = enlargement(entry.mpp)
    truth = mitosis_truth(root, entry, sample)
    votes = [float(v) if v else 1.0 for v in entry.mitoses_votes.split(";")] if entry.mitoses_votes else []
    if len(votes) != len(truth):
        votes = [1.0] * len(truth)
    known = [(float(x), float(y), 0.55 + 0.45 * v, MITOSIS) for (x, y), v in zip(truth, votes, strict=True)]
    known += [(x * factor, y * factor, 0.1, LOOK_ALIKE) for x, y in points_of(entry.look_alikes)]
    radius_px = _NEAR_UM / sample.mpp
    h, w = sample.image.shape[:2]
    free = np.ones((h, w), np.uint8)
    for x, y, _, _ in known:
        cv2.circle(free, (int(x), int(y)), round(radius_px), 0, -1)
    free[sample.labels[..., MITOSES] == IGNORE] = 0
    others = [(x, y, 0.0, PEAK) for x, y in proposed.tolist() if free[int(y), int(x)]]
    for x, y, _, _ in others:
        cv2.circle(free, (int(x), int(y)), round(radius_px), 0, -1)
    known = [(*_nearest(proposed, x, y, radius_px), target, kind) for x, y, target, kind in known]
    return [*known, *others, *_dark(sample, free, dark_per_mm2)]


def _nearest(proposed: NDArray[np.float64], x: float, y: float, radius_px: float) -> tuple[float, float]:
    """Return the nearest proposed place within a radius, or the place itself where there is none."""
    distance = np.hypot(*(proposed - (x, y)).T)
    if not distance.size or distance.min() > radius_px:
        return x, y
    nearest = proposed[int(distance.argmin())]
    return float(nearest[0]), float(nearest[1])


def _dark(sample: Sample, free: NDArray[np.uint8], per_mm2: float) -> list[tuple[float, float, float, int]]:
    grey = cv2.GaussianBlur(sample.image.astype(np.float32).mean(axis=2), (0, 0), _DARK_UM / sample.mpp)
    ys, xs = np.nonzero((grey == cv2.erode(grey, np.ones((25, 25), np.uint8))) & (free > 0))
    h, w = grey.shape
    most = max(1, round(per_mm2 * h * w * sample.mpp**2 / 1e6))
    order = np.argsort(grey[ys, xs])[:most]
    return [(float(xs[i]) + 0.5, float(ys[i]) + 0.5, 0.0, DARK) for i in order]


def _crop(image: NDArray[np.uint8], x: float, y: float) -> NDArray[np.uint8]:
    h, w = image.shape[:2]
    left, top = round(x) - CROP_PX // 2, round(y) - CROP_PX // 2
    rows = np.abs(np.arange(top, top + CROP_PX))
    columns = np.abs(np.arange(left, left + CROP_PX))
    rows, columns = np.minimum(rows, 2 * h - 1 - rows), np.minimum(columns, 2 * w - 1 - columns)
    return image[np.ix_(np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1))]
