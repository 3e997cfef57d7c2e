"""Cross-fitting: networks judge the candidates of patients that they did not see, and another network learns from that, too.

A label is one reader's or a few readers' decision, and some are wrong. What networks say that never saw the patient tells how
doubtful each is (Wolpert 1992, stacking; Hinton et al. 2015, distillation).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from minugan_training.classification.candidates import Candidates, chosen
from minugan_training.classification.judging import averaged, classifier_inputs, logits_of
from minugan_training.classification.train import ClassifierExperiment
from minugan_training.fitting.distributed import local_device
from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.outputs.atomic import atomic_path

JUDGED_FILE = "judged.npz"


@dataclass(frozen=True)
class Fold:
    """One part of the patients, which a training leaves out.

    Attributes
    ----------
    number, of : int
        Which of how many parts; the first is 1.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Fold:
        """Return the fold that a text like ``2/4`` names.

        Parameters
        ----------
        text : str
            Number and count.

        Returns
        -------
        Fold
            The fold.

        Raises
        ------
        TrainingError
            If it names none.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) >= 2):
            raise TrainingError(f"'{text}' names no part of the patients. Write the second of four as 2/4.")
        return cls(int(number), int(count))

    def holds(self, found: Candidates) -> NDArray[np.bool_]:
        """Return which candidates are of this part's patients; the patients of each data set take turns.

        Parameters
        ----------
        found : Candidates
            All of them.

        Returns
        -------
        ndarray of bool, shape (n,)
            One value for each.
        """
        here: set[str] = set()
        known: set[str] = set()
        for dataset in np.unique(found.dataset):
            new = sorted(set(found.patient[found.dataset == dataset].tolist()) - known)
            here.update(new[self.number - 1 :: self.of])
            known.update(new)
        return np.isin(found.patient, sorted(here))


def prepare_cross_fitting(
    experiment: ClassifierExperiment, found: Candidates, part: Fold | None = None, judged: Sequence[Path] = ()
) -> tuple[Candidates, NDArray[np.bool_]]:
    """Return what a training learns from, and which candidates it leaves out for `judge_held_out`.

    Parameters
    ----------
    experiment : ClassifierExperiment
        Says the share of judgements in the labels.
    found : Candidates
        All of them.
    part : Fold, optional
        The patients that are left out.
    judged : sequence of Path
        Runs with a part, on the same candidates, whose judgements become part of the labels.

    Returns
    -------
    train : Candidates
        Those of the other patients, with their labels.
    held_out : ndarray of bool, shape (n,)
        One value for each of all candidates.

    Raises
    ------
    TrainingError
        If the experiment says no share of judgements that are named, or the share of none.
    DataError
        If there are too few patients for the parts, or the judgements are not of these candidates.
    """
    if bool(judged) != (experiment.soft_labels > 0):
        raise TrainingError(
            "Give an experiment 'soft_labels', a share, and name the runs to take them from; or neither."
        )
    if judged:
        found = with_soft_labels(found, judged, experiment.soft_labels)
    if part is None:
        return found, np.zeros(len(found.kind), bool)
    held_out = part.holds(found)
    if not held_out.any() or held_out.all():
        raise DataError("There are too few patients for so many parts.")
    return chosen(found, ~held_out), held_out


def judge_held_out(
    experiment: ClassifierExperiment,
    weights: dict[str, Tensor],
    found: Candidates,
    held_out: NDArray[np.bool_],
    folder: Path,
    device: str = "cpu",
) -> None:
    """Write what a network says of the candidates that its training left out, into ``judged.npz``; nothing if there are none.

    Parameters
    ----------
    experiment : ClassifierExperiment
        The network's settings.
    weights : dict of str to Tensor
        From `train_classifier`.
    found : Candidates
        All of them.
    held_out : ndarray of bool, shape (n,)
        From `prepare_cross_fitting`.
    folder : Path
        Of the run.
    device : {"cpu", "cuda", "auto"}
        Where to judge.

    Raises
    ------
    DeviceError
        If the device is not there.
    """
    if not held_out.any():
        return
    network = averaged(experiment.width, weights).to(local_device(device))
    logits = logits_of(network, classifier_inputs(found.crops[held_out]), mirrored=True)
    with atomic_path(folder / JUDGED_FILE) as temporary, temporary.open("wb") as f:
        np.savez(f, held_out=held_out, logits=logits)


def with_soft_labels(found: Candidates, judged: Sequence[Path], share: float) -> Candidates:
    """Return candidates whose probabilities are partly those that networks gave which did not see the patient.

    Parameters
    ----------
    found : Candidates
        With the readers' probabilities.
    judged : sequence of Path
        Runs that left out a part, on these candidates. Of several logits the mean counts.
    share : float
        Share of the networks, 0 to 1.

    Returns
    -------
    Candidates
        The same, with other probabilities.

    Raises
    ------
    DataError
        If a file cannot be read, is of other candidates, or a candidate is in none.
    """
    total, count = np.zeros(len(found.target)), np.zeros(len(found.target))
    for folder in judged:
        held_out, logits = _read_judged(folder / JUDGED_FILE, len(found.target))
        total[held_out] += logits
        count[held_out] += 1
    if not count.all():
        raise DataError(
            f"Of {int((count == 0).sum())} candidates there is no judgement. Name the runs of all parts of the patients."
        )
    said = 1 / (1 + np.exp(-total / count))
    return replace(found, target=(1 - share) * found.target + share * said)


def _read_judged(path: Path, n: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    try:
        with np.load(path, allow_pickle=False) as data:
            held_out, logits = data["held_out"].astype(bool), data["logits"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise DataError(
            f"The judgements {path} cannot be read: {e}. Make them with: minugan-train classify --without-part"
        ) from e
    if held_out.shape != (n,) or logits.shape != (int(held_out.sum()),):
        raise DataError(f"{path} tells of other candidates. Judge those that you learn from.")
    return held_out, logits
