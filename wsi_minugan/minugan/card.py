"""The model card: what a bundle says of its network, thresholds, calibration and errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from wsi_minugan.config import Antialias
from wsi_minugan.errors import ModelError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.minugan.stain import StainStatistics

_LEAST_BYTE = 0.5 / 255
_Density = Annotated[float, Field(gt=0, le=4)]


class Architecture(FrozenModel):
    """Shape of the generator."""

    network: Literal["minugan-generator"] = "minugan-generator"
    ngf: int = Field(ge=1, le=256)
    norm: Literal["instance", "batch"]
    antialias: Antialias = Field(
        False, description="Blur before each convolution with a stride: true is of 3 px."
    )


class ModelThresholds(FrozenModel):
    """Thresholds of the channels' scores (0 to 1), and smallest objects; tuned on the split "val"."""

    mitosis: float = Field(gt=0, lt=1)
    nucleus: float = Field(gt=0, lt=1)
    boundary: float = Field(gt=0, le=1)
    mitosis_peak: float = Field(0.0, ge=0, lt=1, description="Least maximum score of a mitosis.")
    mitosis_min_area_um2: float = Field(ge=0)
    nucleus_min_area_um2: float = Field(ge=0)


class NucleusSplitting(FrozenModel):
    """Touching nuclei are split where their common outline has a neck; tuned on images whose nuclei are known one by one."""

    smoothing_um: float = Field(
        ge=0, le=5, description="Standard deviation of the smoothing of distances to the edge."
    )
    least_depth_um: float = Field(
        gt=0,
        le=10,
        description="By how much that distance must fall from the lower of two peaks to the neck.",
    )
    least_area_um2: float = Field(ge=0, description="Smaller nuclei stay whole.")
    largest_area_um2: float = Field(20000.0, gt=0, description="Larger clusters stay whole.")
    hole_um2: float = Field(0.0, ge=0, description="Holes up to this area do not count as edges.")


class TestTimeAugmentation(FrozenModel):
    """Patches that may hold a mitosis are scored again, mirrored in x, in y and in both, and the four scores averaged."""

    least_score: float = Field(
        gt=0, lt=1, description="A patch is scored again where any pixel has this mitosis score or more."
    )
    mitosis: Literal["mean", "highest"] = Field(
        "mean", description="Which of the four mitosis scores counts; of the other scores the mean does."
    )


ClassifierKind = Literal["residual", "efficientnet-lite0"]


class CandidateStage(FrozenModel):
    """The second stage: classifiers judge each candidate of the generator; their probability takes the place of its score."""

    width: int = Field(ge=4, le=256, description="Channels of the classifiers after their first reduction.")
    members: int = Field(ge=1, le=16, description="Classifiers whose mean logit counts.")
    kinds: tuple[ClassifierKind, ...] = Field(
        (), description="The architecture of each member; by default all are residual."
    )
    least_score: float = Field(
        gt=0, lt=1, description="Generator's score from which on a pixel is part of a candidate."
    )
    full_score: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Generator's score from which on a pixel has the candidate's whole probability. None: pixels with half "
        "of the candidate's highest score or more have it, and no others are part of the candidate.",
    )
    refuse_below: float | None = Field(
        None,
        description="Mean logit of the members so far below which the others do not see a candidate, to save time. None: all see all.",
    )
    view_densities: tuple[_Density, _Density, _Density, _Density] | None = Field(
        None,
        description="Factor of the optical densities in each of the four mirrored views of a crop. None: all have the crop's own.",
    )
    weight: float = Field(1.0, description="Calibration: factor of the classifiers' mean logit.")
    first_stage_weight: float = Field(
        0.0, description="Calibration: factor of the logit of the generator's highest score in the candidate."
    )
    bias: float = Field(0.0, description="Calibration: added to both.")
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def networks(self) -> tuple[ClassifierKind, ...]:
        """The architecture of each member.

        Returns
        -------
        tuple of str
            As many as there are members.
        """
        residual: ClassifierKind = "residual"
        return self.kinds or (residual,) * self.members

    @model_validator(mode="after")
    def _one_kind_each(self) -> CandidateStage:
        if self.kinds and len(self.kinds) != self.members:
            raise ValueError(f"kinds names {len(self.kinds)} architectures of {self.members} members")
        return self

    def probability(self, logit: float, peak: float) -> float:
        """Return the calibrated probability of a mitosis.

        Parameters
        ----------
        logit : float
            The classifiers' mean logit.
        peak : float
            The generator's highest score in the candidate, 0 to 1.

        Returns
        -------
        float
            0 to 1.
        """
        z = self.weight * logit + self.first_stage_weight * logit_of(peak) + self.bias
        return 0.5 + 0.5 * math.tanh(z / 2)


def logit_of(score: float) -> float:
    """Return the logit of a score, kept finite for 0 and 1.

    Parameters
    ----------
    score : float
        A score of 0 to 1. It is first brought within what a byte can tell from 0 and from 1.

    Returns
    -------
    float
        Natural logarithm of the odds.

    Examples
    --------
    >>> logit_of(0.5)
    0.0
    """
    kept = min(max(score, _LEAST_BYTE), 1 - _LEAST_BYTE)
    return math.log(kept / (1 - kept))


OperatingPoint = Literal["balanced", "sensitive", "specific"]


class PatientFigures(FrozenModel):
    """What the model found on one patient's fields, against what experts marked."""

    patient: str = Field(min_length=1)
    scanner: str = ""
    area_mm2: float = Field(gt=0, description="Area of the fields.")
    true_positives: int = Field(ge=0)
    false_positives: int = Field(ge=0)
    false_negatives: int = Field(ge=0)


class MeasuredPoint(FrozenModel):
    """The model's errors at one setting of its thresholds."""

    patients: tuple[PatientFigures, ...] = Field(
        description="Patients that the model was neither trained nor tuned on, each once."
    )


class ModelReliability(FrozenModel):
    """What a count's interval is made from; `minugan-train intervals` writes and checks it."""

    operating_points: dict[OperatingPoint, MeasuredPoint] = Field(
        description='By name; "balanced" is that of the card\'s thresholds.'
    )
    radius_um: float = Field(7.5, gt=0, description="Greatest distance of a match.")
    reader_f1: float | None = Field(
        None, gt=0, le=1, description="F1 of single mitoses between two readers; None where not measured."
    )


class StainNormalisation(FrozenModel):
    """The stain that slides are brought to, and the stains that the training data had; `minugan-train stain` measures both."""

    method: Literal["mean and spread"] = Field(
        "mean and spread", description="Of the densities of each stain; one map for a whole slide."
    )
    switched_on: bool = Field(False, description="Whether `--stain auto` brings slides to the target.")
    target: StainStatistics = Field(description="The median of the training data's slides.")
    low: StainStatistics = Field(
        description="Least of the training data's slides, figure by figure, with a margin."
    )
    high: StainStatistics = Field(description="Greatest of them, figure by figure, with a margin.")
    slides: int = Field(ge=1, description="Slides that were measured: each patient on each scanner.")


class ModelCard(FrozenModel):
    """What a model is, what it was trained on, and how well it was seen to do."""

    former_names: ClassVar[Mapping[str, str]] = {"second_look": "test_time_augmentation"}

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    architecture: Architecture
    mpp: float = Field(gt=0.05, lt=2, description="um/px of the patches.")
    patch_px: Literal[256] = 256
    patches_across: Literal[1, 2, 3] = Field(
        1,
        description="Side of the square of patches that the network sees at once on slides: the more, the less its answers depend on "
        "where patches lie.",
    )
    shifted_view_px: Annotated[int, Field(ge=0, lt=32)] = Field(
        0,
        description="The generator sees each patch a second time, moved by so many px, and the scores are the mean: what its strides "
        "skip in one view they meet in the other. 0: one view.",
    )
    channels: tuple[str, str, str] = ("nucleus", "mitosis", "boundary")
    normalisation: Literal["rgb / 127.5 - 1"] = "rgb / 127.5 - 1"
    thresholds: ModelThresholds
    test_time_augmentation: TestTimeAugmentation | None = Field(
        None, description="Thresholds were tuned with it, or without."
    )
    candidate_stage: CandidateStage | None = Field(
        None, description="The second stage; thresholds of mitoses then are probabilities."
    )
    nucleus_splitting: NucleusSplitting | None = Field(
        None, description="Where touching nuclei are split; None: they stay joined."
    )
    operating_points: dict[OperatingPoint, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict,
        description="Least peak score of a mitosis by name: balanced (the default), sensitive, specific.",
    )
    stain: StainNormalisation | None = Field(
        None,
        description="Stain normalisation; without it slides are analysed as they are, and none is told of.",
    )
    training_data: tuple[str, ...]
    scores: dict[str, Any] = Field(description="Measured figures; never copied from elsewhere.")
    figures_of: str = Field(
        "",
        description="The model whose figures these are, and why, where it is not this one. "
        "A model that learnt from the choosing sets, too, has those of the one before it.",
    )
    reliability: ModelReliability | None = Field(
        None, description="Errors by patient; without them counts have no interval."
    )
    licence: str = Field(min_length=1)
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def least_peak(self, point: OperatingPoint, own: float | None = None) -> float:
        """Return the least peak score of a mitosis at an operating point.

        Parameters
        ----------
        point : {"balanced", "sensitive", "specific"}
            Name of the operating point.
        own : float, optional
            The user's threshold, which takes the place of the point's.

        Returns
        -------
        float
            0 to 1.

        Raises
        ------
        ModelError
            If the card has no such point; "balanced" is there always.
        """
        if own:
            return own
        if point == "balanced":
            return self.operating_points.get(point, self.thresholds.mitosis_peak)
        if point not in self.operating_points:
            raise ModelError(
                f"The model {self.name} {self.version} has no operating point '{point}'. "
                "Run with --operating-point balanced, or give --mitosis-threshold."
            )
        return self.operating_points[point]
