"""The paper's tables, from cross-validations and held-out sets that were run."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from minugan_training.evaluation.metrics import Detections, bootstrap_interval, pooled, resampled_by
from minugan_training.evaluation.patches import PatchScore
from minugan_training.paper.cross_validation import CROSSVAL, CrossValidation
from minugan_training.paper.held_out import HELD_OUT, HeldOut
from wsi_minugan.errors import DataError

BASELINES = ("unet", "unet-focal")
_IN_PAPER = {"tupac16": "TUPAC16", "icpr12": "ICPR12", "icpr14": "ICPR14", "mitos14": "ICPR14"}
"""The paper's names (Table 3) of sets; MITOS-ATYPIA-14 is the contest of ICPR 2014."""
_Result = TypeVar("_Result", bound=BaseModel)


@dataclass(frozen=True)
class Results:
    """What was run, by the name of the experiment.

    Attributes
    ----------
    crossval : dict of str to CrossValidation
        Cross-validations: Table 2, Figures 3, 4 and 6 to 9.
    heldout : dict of str to HeldOut
        Scores on sets held out: Table 3, Figures 5 and 10.
    """

    crossval: dict[str, CrossValidation]
    heldout: dict[str, HeldOut]

    @property
    def best(self) -> str | None:
        """The MiNuGAN configuration with the highest mean Dice; None where none was cross-validated.

        Returns
        -------
        str or None
            The experiment's name.
        """
        ours = {k: dices(c.patches) for k, c in self.crossval.items() if k not in BASELINES}
        return max(ours, key=lambda k: ours[k].mean() if len(ours[k]) else -1.0, default=None)


def load_results(folder: Path) -> Results:
    """Return the results below a folder.

    Parameters
    ----------
    folder : Path
        Where to look.

    Returns
    -------
    Results
        By experiment.

    Raises
    ------
    DataError
        If there are none, or one cannot be read.
    """
    crossval = _read_all(folder, CROSSVAL, CrossValidation)
    heldout = _read_all(folder, HELD_OUT, HeldOut)
    if not crossval and not heldout:
        raise DataError(f"{folder} holds no results. Run: minugan-train crossval EXPERIMENT... -o {folder}")
    return Results({c.experiment: c for c in crossval}, {h.experiment: h for h in heldout})


def _read_all(folder: Path, name: str, kind: type[_Result]) -> list[_Result]:
    try:
        return [kind.model_validate_json(p.read_bytes()) for p in sorted(folder.glob(f"*/{name}"))]
    except (OSError, ValueError) as e:
        raise DataError(f"The results in {folder} cannot be read: {e}.") from e


def summary_rows(results: Mapping[str, CrossValidation]) -> list[dict[str, Any]]:
    """Return a row for each experiment: mean, deviation and coefficient of variation of Dice, F1 with its interval.

    Parameters
    ----------
    results : mapping of str to CrossValidation
        By experiment.

    Returns
    -------
    list of dict of str to Any
        Columns of Table 2.
    """
    rows = []
    for name, c in results.items():
        values = dices(c.patches)
        mean, deviation = (float(values.mean()), float(values.std())) if len(values) else (math.nan, math.nan)
        losses = c.settings.losses
        rows.append(
            {
                "experiment": name,
                "discriminators": losses.discriminators if losses.adversarial else 0,
                "gamma": losses.gamma if losses.adversarial else None,
                "steps": c.settings.steps,
                "seed": c.settings.seed,
                "patches": len(c.patches),
                "dice": round(mean, 3),
                "deviation": round(deviation, 3),
                "cov": round(deviation / mean, 3) if mean > 0 else None,
            }
            | _f1_of(c.patches)
        )
    return rows


def table_3(patches: Sequence[PatchScore]) -> list[dict[str, Any]]:
    """Return F1 by data set, by scanner, and by scanner within a data set (paper, Table 3): pooled, and the mean of single patches.

    The paper seems to have the latter. And the Dice of mitoses, where experts outlined them (Figure 5).

    Parameters
    ----------
    patches : sequence of PatchScore
        Scores of the patches held out.

    Returns
    -------
    list of dict of str to Any
        Columns of Table 3.
    """
    rows = []
    keys: tuple[tuple[str, Callable[[PatchScore], str]], ...] = (
        ("data set", lambda p: in_paper(p.dataset)),
        ("scanner", lambda p: p.scanner),
        ("set, scanner", lambda p: f"{in_paper(p.dataset)}, {p.scanner or 'scanner not known'}"),
    )
    for kind, key in keys:
        for name in sorted({key(p) for p in patches}):
            part = [p for p in patches if key(p) == name]
            overlaps = dices(part, ("mitoses",))
            each = np.array([Detections(p.tp, p.fp, p.fn).f1 for p in part])
            rows.append(
                {
                    "of": kind, "name": name, "patches": len(part), **_f1_of(part),
                    "f1_of_patches": round(float(each.mean()), 3), "deviation": round(float(each.std()), 3),
                    "dice_mitoses": round(float(overlaps.mean()), 3) if len(overlaps) else None,
                    "dice_deviation": round(float(overlaps.std()), 3) if len(overlaps) else None,
                }
            )  # fmt: skip
    return rows


def in_paper(dataset: str) -> str:
    """Return a data set's name with the paper's for it, where the paper has it.

    Parameters
    ----------
    dataset : str
        Name in the index.

    Returns
    -------
    str
        As `mitos14 (ICPR14)`.
    """
    name = _IN_PAPER.get(dataset)
    return f"{dataset} ({name})" if name else dataset


def dices(
    patches: Sequence[PatchScore], classes: Sequence[str] = ("mitoses", "nuclei")
) -> NDArray[np.float64]:
    """Return the mean Dice of each patch over those of the classes that experts outlined there.

    Parameters
    ----------
    patches : sequence of PatchScore
        Scores.
    classes : sequence of str
        Which count.

    Returns
    -------
    ndarray of float, shape (n,)
        Patches without an expert's outline are left out.
    """
    found = ([d for c in classes if (d := getattr(p, f"dice_{c}")) is not None] for p in patches)
    return np.array([float(np.mean(d)) for d in found if d])


def _f1_of(patches: Sequence[PatchScore]) -> dict[str, Any]:
    """Return the pooled F1 with its interval: by patient, or, where all patches are of one patient, by image; of one image, none."""
    by = resampled_by(p.patient for p in patches)
    counts: dict[str, Detections] = defaultdict(lambda: Detections(0, 0, 0))
    for p in patches:
        counts[p.patient if by == "patient" else p.image] += Detections(p.tp, p.fp, p.fn)
    low, high = bootstrap_interval(counts, lambda d: d.f1) if len(counts) > 1 else (None, None)
    figures = {
        "f1": pooled(list(counts.values())).f1,
        "f1_low": low,
        "f1_high": high,
        "f1_painted": _f1_painted(patches),
    }
    return {k: None if v is None else round(v, 3) for k, v in figures.items()} | {"by": by}


def _f1_painted(patches: Sequence[PatchScore]) -> float | None:
    """Return the F1 of a network that takes every whole patch for one mitosis: what a figure has to beat to mean something."""
    hits = [p.painted_tp for p in patches if p.painted_tp is not None]
    if len(hits) < len(patches):
        return None
    truths = sum(p.tp + p.fn for p in patches)
    return Detections(sum(hits), len(patches) - sum(hits), truths - sum(hits)).f1
