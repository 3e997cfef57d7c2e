"""The second stage adapted to reviews: few steps from its own weights, and no more of them than a guard set's recall allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from minugan_training.classification.batches import crop_batches
from minugan_training.classification.candidates import (
    DARK,
    LOOK_ALIKE,
    MITOSIS,
    PEAK,
    Candidates,
    chosen,
    find_candidates,
    joined,
)
from minugan_training.classification.crops import CropSampler
from minugan_training.classification.judging import averaged, classifier_inputs, logits_of
from minugan_training.classification.train import descend
from minugan_training.data.index import read_index
from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.minugan.bundle import Bundle, save_bundle
from wsi_minugan.minugan.card import CandidateStage
from wsi_minugan.minugan.classifier import CandidateClassifier
from wsi_minugan.minugan.networks.loading import load_classifiers, load_network
from wsi_minugan.minugan.sentinel import RANGE_FILE
from wsi_minugan.outputs.atomic import write_bytes

STRENGTHS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the way from the old weights to the new ones, the most first (Wortsman et al. 2022)."""
_REVIEWED: Mapping[int, float] = {MITOSIS: 0.4, LOOK_ALIKE: 0.4, PEAK: 0.2}
"""Shares of what is drawn of the reviews."""
_INDEX = "index.csv"
_WARM_UP_STEPS = 20


class Adaptation(FrozenModel):
    """How the second stage is adapted."""

    steps: int = Field(200, ge=1)
    batch: int = Field(32, ge=4)
    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    reviewed: float = Field(0.4, gt=0, lt=1, description="Share of a batch that is from the reviews.")
    mixed_in: int = Field(6000, ge=1, description="Most candidates of the training data that are mixed in.")
    guards: int = Field(200, ge=1, description="Most mitoses of the guard set, and most others.")
    most_lost: float = Field(0.01, ge=0, le=1, description="Recall that the guard set may lose.")
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class Judged:
    """How a model judges candidates that the first stage proposes, at its balanced operating point.

    Attributes
    ----------
    mitoses, found : int
        Mitoses among them, and how many of these are kept.
    others, refused : int
        What is none, and how many of these are refused.
    """

    mitoses: int
    found: int
    others: int
    refused: int

    @property
    def recall(self) -> float:
        """Share of the mitoses that are kept; 1 where there are none.

        Returns
        -------
        float
            0 to 1.
        """
        return self.found / self.mitoses if self.mitoses else 1.0


@dataclass(frozen=True)
class Adapted:
    """An adapted second stage.

    Attributes
    ----------
    members : tuple of dict of str to Tensor
        Weights of its classifiers.
    strength : float
        Share of the way that was taken.
    guard, reviewed : tuple of Judged
        Judgements before and after.
    """

    members: tuple[dict[str, Tensor], ...]
    strength: float
    guard: tuple[Judged, Judged]
    reviewed: tuple[Judged, Judged]


def reviewed_candidates(places: Sequence[Path], bundle: Bundle) -> Candidates:
    """Return what reviews decided on, and the other peaks in their images.

    Parameters
    ----------
    places : sequence of Path
        Folders of reviews (``OUT/SLIDE_ID/reviews/NAME``), or their indexes.
    bundle : Bundle
        The model; its first stage finds the peaks.

    Returns
    -------
    Candidates
        Mitoses, places that are none, and peaks.

    Raises
    ------
    DataError
        If they hold nothing to learn from.
    """
    stage, network = _stage_of(bundle), load_network(bundle)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = []
    for place in places:
        index = place / _INDEX if place.is_dir() else place
        entries = [e for e in read_index(index) if e.mitoses != "unknown"]
        if entries:
            parts.append(find_candidates(index.parent, entries, network, stage.least_score, 0.0))
    if not parts:
        raise DataError("The reviews hold no images to learn from. Reject, add or move a mitosis first.")
    found = joined(parts)
    return chosen(found, np.flatnonzero(found.kind != DARK))


def adapt(
    bundle: Bundle, reviewed: Candidates, mixed_in: Candidates, guard: Candidates, settings: Adaptation
) -> Adapted:
    """Adapt a model's classifiers to reviews.

    Each is trained on from its weights, with its norms' statistics as they are. Then as much of the change is taken as loses
    no more of the guard set's recall than the settings allow.

    Parameters
    ----------
    bundle : Bundle
        The model.
    reviewed : Candidates
        What was reviewed.
    mixed_in : Candidates
        Of the data that the model was trained on, so that it keeps what it knows.
    guard : Candidates
        Of patients that are in neither.
    settings : Adaptation
        How.

    Returns
    -------
    Adapted
        New weights, and what they cost and bring.

    Raises
    ------
    TrainingError
        If the model has no second stage, or the guard set loses too much even with the least change.
    """
    stage = _stage_of(bundle)
    rng = np.random.default_rng(settings.seed)
    mixed_in = chosen(mixed_in, rng.permutation(len(mixed_in.kind))[: settings.mixed_in])
    guard, reviewed_seen = _guards(guard, stage, settings, rng), _proposed(reviewed, stage)
    old = [m.state_dict() for m in load_classifiers(bundle)]
    sampler = CropSampler.of(joined([reviewed, mixed_in]), settings.seed)
    chances = _chances(reviewed, _weights_from(sampler, len(reviewed.kind)), settings.reviewed)
    new = [
        _trained(w, stage.width, replace(sampler, seed=settings.seed + 1000 * k), chances, settings)
        for k, w in enumerate(old)
    ]
    least = bundle.card.least_peak("balanced")
    inputs = classifier_inputs(guard.crops)
    before = _judged(old, stage, guard, inputs, least)
    for strength in STRENGTHS:
        members = [_between(a, b, strength) for a, b in zip(old, new, strict=True)]
        after = _judged(members, stage, guard, inputs, least)
        if after.recall >= before.recall - settings.most_lost - 1e-9:
            seen = classifier_inputs(reviewed_seen.crops)
            told = [_judged(m, stage, reviewed_seen, seen, least) for m in (old, members)]
            return Adapted(tuple(members), strength, (before, after), (told[0], told[1]))
    raise TrainingError(
        f"Even {STRENGTHS[-1]:.0%} of the change costs recall on the guard set: {after.recall:.3f} instead of {before.recall:.3f}. "
        "Nothing was written. Review more slides, or take fewer steps."
    )


def write_adapted(bundle: Bundle, adapted: Adapted, told: str, out: Path) -> Bundle:
    """Write the bundle of an adapted model; figures of the model that it comes from are not its own, and are left out.

    Parameters
    ----------
    bundle : Bundle
        The model that was adapted.
    adapted : Adapted
        Its new second stage.
    told : str
        What it was adapted to, for the card.
    out : Path
        Folder of the new bundle.

    Returns
    -------
    Bundle
        As it was written.

    Raises
    ------
    TrainingError
        If `out` is the folder of the model itself.
    """
    if out.resolve() == bundle.path.resolve():
        raise TrainingError(f"{out} is the model that is adapted. Name another folder.")
    card = bundle.card
    fields_ = card.model_dump(mode="json") | {
        "name": f"{card.name}-adapted",
        "training_data": [*card.training_data, told],
        "scores": {},
        "reliability": None,
    }
    members = {f"{n}.{k}": v for n, state in enumerate(adapted.members) for k, v in state.items()}
    written = save_bundle(out, load_network(bundle).state_dict(), fields_, classifiers=members)
    known = bundle.path / RANGE_FILE
    if known.is_file():  # of the stain and focus that both stages were trained on
        write_bytes(out / RANGE_FILE, known.read_bytes())
    return written


def _stage_of(bundle: Bundle) -> CandidateStage:
    if bundle.card.candidate_stage is None:
        raise TrainingError(
            f"The model {bundle.card.name} has no second stage, which is what is adapted. Train one with: minugan-train classify"
        )
    if bundle.card.stain is not None and bundle.card.stain.switched_on:
        raise TrainingError(
            f"The model {bundle.card.name} sees slides with a normalised stain, and adaptation learns from slides as they are. "
            "Adapt a model whose card has this switched off."
        )
    return bundle.card.candidate_stage


def _proposed(of: Candidates, stage: CandidateStage) -> Candidates:
    """Return what the first stage proposes: of all else the second stage is never asked."""
    return chosen(of, np.flatnonzero(of.score >= stage.least_score))


def _guards(
    of: Candidates, stage: CandidateStage, settings: Adaptation, rng: np.random.Generator
) -> Candidates:
    """Return the mitoses and others of the guard set that are judged.

    Raises
    ------
    DataError
        If it has no mitoses.
    """
    seen = _proposed(of, stage)
    order = rng.permutation(len(seen.kind))
    mitoses, others = (
        order[(seen.kind[order] == MITOSIS) == true][: settings.guards] for true in (True, False)
    )
    if not len(mitoses):
        raise DataError(
            "The guard set has no mitoses, so it guards nothing. Make candidates of labelled images with: minugan-train candidates"
        )
    return chosen(seen, np.concatenate([mitoses, others]))


def _trained(
    weights: dict[str, Tensor],
    width: int,
    sampler: CropSampler,
    chances: NDArray[np.float64],
    settings: Adaptation,
) -> dict[str, Tensor]:
    """Return a classifier's weights after some steps on reviews among what it was trained on."""
    network = averaged(width, weights)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    batches = crop_batches(sampler, range(settings.steps), settings.batch, lambda: chances)
    for step, (images, target, _) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, settings.steps)
        _step(network, optimizer, images, target, sampler.seed + step)
    return {k: v.detach().clone() for k, v in network.state_dict().items()}


def _weights_from(sampler: CropSampler, start: int) -> NDArray[np.float64]:
    """Return the weights of the candidates from an index on, as if there were no others."""
    parts = {k: getattr(sampler, k)[start:] for k in ("crops", "target", "kind", "patient", "dataset")}
    return replace(sampler, **parts).weights()


def _chances(reviewed: Candidates, others: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return each candidate's chance to be drawn: of the reviews, what a person decided on has most, however many other peaks there are."""
    own = np.zeros(len(reviewed.kind))
    for kind, part in _REVIEWED.items():
        of = reviewed.kind == kind
        if of.any():
            own[of] = part / of.sum()
    return np.concatenate([share * own / own.sum(), (1 - share) * others])


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _step(
    network: CandidateClassifier,
    optimizer: torch.optim.Optimizer,
    images: NDArray[np.float32],
    target: NDArray[np.float32],
    seed: int,
) -> None:
    # The norms keep their statistics: those of few reviewed slides are not those of what is to come.
    network.eval()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.train()
    torch.manual_seed(seed)
    descend(network, optimizer, images, target)


def _between(old: dict[str, Tensor], new: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    return {
        k: torch.lerp(v, new[k], strength) if v.is_floating_point() else new[k].clone()
        for k, v in old.items()
    }


def _judged(
    members: Sequence[dict[str, Tensor]],
    stage: CandidateStage,
    of: Candidates,
    inputs: NDArray[np.uint8],
    least: float,
) -> Judged:
    """Judge candidates as in use: the mean logit over members and views, calibrated with the first stage's score."""
    networks = [averaged(stage.width, m) for m in members]
    views = stage.view_densities
    logits = np.mean([logits_of(n, inputs, mirrored=True, densities=views) for n in networks], axis=0)
    kept = np.array([stage.probability(z, s) >= least for z, s in zip(logits, of.score, strict=True)], bool)
    hit = of.kind == MITOSIS
    return Judged(int(hit.sum()), int((hit & kept).sum()), int((~hit).sum()), int((~hit & ~kept).sum()))
