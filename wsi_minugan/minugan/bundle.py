"""Model bundles: a folder with `model.safetensors` and `card.json`.

Loading checks the card's schema and the weights' SHA-256. Nothing is unpickled and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from wsi_minugan.config import problems_in
from wsi_minugan.errors import ModelError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.hashing import sha256_of

WEIGHTS = "model.safetensors"
CLASSIFIER = "classifier.safetensors"
CARD = "card.json"
_LEAST_BYTE = 0.5 / 255
BUNDLED = Path(__file__).parent / "bundled"


class Architecture(FrozenModel):
    """Shape of the generator."""

    network: Literal["minugan-generator"] = "minugan-generator"
    ngf: int = Field(ge=1, le=256)
    norm: Literal["instance", "batch"]
    antialias: bool = Field(False, description="Blur before each convolution with a stride.")


class ModelThresholds(FrozenModel):
    """Thresholds of the channels' scores (0 to 1), and smallest objects; tuned on the split "val"."""

    mitosis: float = Field(gt=0, lt=1)
    nucleus: float = Field(gt=0, lt=1)
    boundary: float = Field(gt=0, le=1)
    mitosis_peak: float = Field(0.0, ge=0, lt=1, description="Least maximum score of a mitosis.")
    mitosis_min_area_um2: float = Field(ge=0)
    nucleus_min_area_um2: float = Field(ge=0)


class TestTimeAugmentation(FrozenModel):
    """Patches that may hold a mitosis are scored again, mirrored in x, in y and in both, and the four scores averaged."""

    least_score: float = Field(
        gt=0, lt=1, description="A patch is scored again where any pixel has this mitosis score or more."
    )


class CandidateStage(FrozenModel):
    """The second stage: classifiers judge each candidate of the generator; their probability takes the place of its score."""

    width: int = Field(ge=4, le=256, description="Channels of the classifiers after their first reduction.")
    members: int = Field(ge=1, le=16, description="Classifiers whose mean logit counts.")
    least_score: float = Field(
        gt=0, lt=1, description="Generator's score from which on a pixel is part of a candidate."
    )
    full_score: float = Field(
        gt=0,
        lt=1,
        description="Generator's score from which on a pixel has the candidate's whole probability.",
    )
    weight: float = Field(1.0, description="Calibration: factor of the classifiers' mean logit.")
    first_stage_weight: float = Field(
        0.0, description="Calibration: factor of the logit of the generator's highest score in the candidate."
    )
    bias: float = Field(0.0, description="Calibration: added to both.")
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

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
    """Return the logit of a score of 0 to 1, kept within what a byte can tell apart.

    Parameters
    ----------
    score : float
        0 to 1.

    Returns
    -------
    float
        Natural logarithm of the odds.
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


class ModelCard(FrozenModel):
    """What a model is, what it was trained on, and how well it was seen to do."""

    former_names: ClassVar[Mapping[str, str]] = {"second_look": "test_time_augmentation"}

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    architecture: Architecture
    mpp: float = Field(gt=0.05, lt=2, description="um/px of the patches.")
    patch_px: Literal[256] = 256
    channels: tuple[str, str, str] = ("nucleus", "mitosis", "boundary")
    normalisation: Literal["rgb / 127.5 - 1"] = "rgb / 127.5 - 1"
    thresholds: ModelThresholds
    test_time_augmentation: TestTimeAugmentation | None = Field(
        None, description="Thresholds were tuned with it, or without."
    )
    candidate_stage: CandidateStage | None = Field(
        None, description="The second stage; thresholds of mitoses then are probabilities."
    )
    operating_points: dict[OperatingPoint, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict,
        description="Least peak score of a mitosis by name: balanced (the default), sensitive, specific.",
    )
    training_data: tuple[str, ...]
    scores: dict[str, Any] = Field(description="Measured figures; never copied from elsewhere.")
    reliability: ModelReliability | None = Field(
        None, description="Errors by patient; without them counts have no interval."
    )
    licence: str = Field(min_length=1)
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def least_peak(self, point: OperatingPoint) -> float:
        """Return the least peak score of a mitosis at an operating point.

        Parameters
        ----------
        point : {"balanced", "sensitive", "specific"}
            Its name.

        Returns
        -------
        float
            0 to 1.

        Raises
        ------
        ModelError
            If the card has no such point; "balanced" is there always.
        """
        if point == "balanced":
            return self.operating_points.get(point, self.thresholds.mitosis_peak)
        if point not in self.operating_points:
            raise ModelError(
                f"The model {self.name} {self.version} has no operating point '{point}'. "
                "Run with --operating-point balanced, or give --mitosis-threshold."
            )
        return self.operating_points[point]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose card was read and whose weights have the card's digest.

    Attributes
    ----------
    path : Path
        The folder.
    card : ModelCard
        Its card.
    """

    path: Path
    card: ModelCard

    @property
    def digest(self) -> str:
        """SHA-256 of the card's text, which holds the weights' digest and the thresholds.

        Returns
        -------
        str
            64 hexadecimal digits.
        """
        return hashlib.sha256(self.card.model_dump_json().encode()).hexdigest()

    @property
    def weights(self) -> Path:
        """The weights' file.

        Returns
        -------
        Path
            ``model.safetensors`` of the bundle.
        """
        return self.path / WEIGHTS

    @property
    def classifier_weights(self) -> Path:
        """The file of the second stage's weights.

        Returns
        -------
        Path
            ``classifier.safetensors`` of the bundle.
        """
        return self.path / CLASSIFIER

    def first_stage_only(self) -> Bundle:
        """Return the same model without its second stage and without test-time augmentation.

        Returns
        -------
        Bundle
            The generator alone.
        """
        alone = {"test_time_augmentation": None, "candidate_stage": None}
        return replace(self, card=self.card.model_copy(update=alone))

    def without_test_time_augmentation(self) -> Bundle:
        """Return the same model without test-time augmentation, so that each patch is one pass.

        Returns
        -------
        Bundle
            The same weights and thresholds.
        """
        return replace(self, card=self.card.model_copy(update={"test_time_augmentation": None}))


def find_bundle(model: str) -> Path:
    """Return the folder of a bundled model's name, or of a path.

    Parameters
    ----------
    model : str
        A bundled model's name, or the path of a bundle's folder.

    Returns
    -------
    Path
        The folder. Its card exists; nothing else was checked.

    Raises
    ------
    ModelError
        If neither exists.
    """
    # Only a bare name is a bundled model: of /models/default, the user's own is meant.
    bundled = [BUNDLED / model] if Path(model).name == model else []
    for path in (*bundled, Path(model)):
        if (path / CARD).is_file():
            return path
    names = ", ".join(p.name for p in list_bundles()) or "none"
    raise ModelError(f"No model '{model}': it is neither a bundled model ({names}) nor a folder with {CARD}.")


def list_bundles() -> list[Path]:
    """Return the folders of the bundled models.

    Returns
    -------
    list of Path
        Sorted by name.
    """
    return sorted(p.parent for p in BUNDLED.glob(f"*/{CARD}"))


def load_bundle(path: Path) -> Bundle:
    """Read a bundle's card and check its weights.

    Parameters
    ----------
    path : Path
        Folder of the bundle.

    Returns
    -------
    Bundle
        Card and folder; the weights are not in memory yet.

    Raises
    ------
    ModelError
        If a file is missing, the card does not fit the schema, or the digest differs.
    """
    card = load_card(path)
    if not (path / WEIGHTS).is_file():
        raise ModelError(f"The model in {path} has no {WEIGHTS}. Copy the whole folder.")
    digest = sha256_of(path / WEIGHTS)
    if digest != card.weights_sha256:
        raise ModelError(
            f"The weights {path / WEIGHTS} are not those of the card (SHA-256 {digest[:12]}…, "
            f"the card says {card.weights_sha256[:12]}…). Copy the model again."
        )
    stage = card.candidate_stage
    if stage is not None and not (path / CLASSIFIER).is_file():
        raise ModelError(f"The model in {path} has no {CLASSIFIER}. Copy the whole folder.")
    if stage is not None and sha256_of(path / CLASSIFIER) != stage.weights_sha256:
        raise ModelError(f"The weights {path / CLASSIFIER} are not those of the card. Copy the model again.")
    return Bundle(path, card)


def load_card(path: Path) -> ModelCard:
    """Read a bundle's card alone.

    Parameters
    ----------
    path : Path
        Folder of the bundle.

    Returns
    -------
    ModelCard
        What the card says.

    Raises
    ------
    ModelError
        If it is missing, or does not fit the schema.
    """
    try:
        return ModelCard.model_validate_json((path / CARD).read_bytes())
    except OSError as e:
        raise ModelError(
            f"The model in {path} has no readable {CARD}: {e.strerror}. Copy the whole folder."
        ) from e
    except ValidationError as e:
        raise ModelError(
            f"{path / CARD} is not a model card that this version reads: {problems_in(e)}."
        ) from e


def save_bundle(
    path: Path,
    state: Mapping[str, Any],
    card: Mapping[str, Any],
    fp16: bool = True,
    classifiers: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle.

    Parameters
    ----------
    path : Path
        Folder, made if missing.
    state : mapping of str to Tensor
        The generator's state dict.
    card : mapping
        Fields of `ModelCard` but for `weights_sha256`; that of the second stage is filled in, too.
    fp16 : bool
        Store the kernels in half precision; a norm's statistics can be too large for it, and stay as they are.
    classifiers : mapping of str to Tensor, optional
        State dicts of the second stage's members, under the names "0.", "1." and so on.

    Returns
    -------
    Bundle
        The folder with the card that was written.

    Raises
    ------
    ModelError
        If a weight is not a finite number, also after rounding.
    """
    from safetensors.torch import save

    kept, judges = _stored(state, fp16), _stored(classifiers or {}, fp16)
    path.mkdir(parents=True, exist_ok=True)
    (path / WEIGHTS).write_bytes(save(kept))  # a file of safetensors' own is for its owner alone
    fields = dict(card)
    if judges:
        (path / CLASSIFIER).write_bytes(save(judges))
        fields["candidate_stage"] = {
            **fields["candidate_stage"], "weights_sha256": sha256_of(path / CLASSIFIER),
        }  # fmt: skip
    full = ModelCard(**fields | {"weights_sha256": sha256_of(path / WEIGHTS)})
    (path / CARD).write_text(full.model_dump_json(indent=2) + "\n", "utf-8")
    return Bundle(path, full)


def _stored(state: Mapping[str, Any], fp16: bool) -> dict[str, Any]:
    """Return weights as they are stored.

    Raises
    ------
    ModelError
        If one is not a finite number.
    """
    import torch

    kept = {
        name: (t.half() if fp16 and t.is_floating_point() and t.ndim > 1 else t)
        .detach()
        .contiguous()
        .cpu()
        .clone()
        for name, t in state.items()
        if isinstance(t, torch.Tensor) and not name.endswith("num_batches_tracked")
    }
    broken = [name for name, t in kept.items() if not bool(torch.isfinite(t).all())]
    if broken:
        raise ModelError(
            f"The weights are not all numbers ({len(broken)} of its tensors, first {broken[0]}), so they make no model. "
            "Take an earlier checkpoint's."
        )
    return kept
