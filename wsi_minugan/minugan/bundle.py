"""Model bundles: a folder with `model.safetensors` and `card.json`.

Loading checks the card's schema and the weights' SHA-256. Nothing is unpickled and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsi_minugan.config import problems_in
from wsi_minugan.errors import ModelError
from wsi_minugan.hashing import sha256_of
from wsi_minugan.minugan.card import ModelCard

WEIGHTS = "model.safetensors"
CLASSIFIER = "classifier.safetensors"
CARD = "card.json"
BUNDLED = Path(__file__).parent / "bundled"
_LATER_FIELDS = {"patches_across": 1, "shifted_view_px": 0}
"""Fields that cards did not always have, and what was so before."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose card was read and whose weights have the card's digest.

    Attributes
    ----------
    path : Path
        Folder that holds ``card.json`` and the weights.
    card : ModelCard
        What the card says; it fits the schema.
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
        # They change no digest where they say what was so before: finished slides stay so.
        later = {name for name, value in _LATER_FIELDS.items() if getattr(self.card, name) == value}
        return hashlib.sha256(self.card.model_dump_json(exclude=later).encode()).hexdigest()

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
