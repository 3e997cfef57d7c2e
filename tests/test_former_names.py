"""Files and commands of earlier versions, with the names that things had then, go on to work."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from minugan_training.cli.main import app
from minugan_training.fitting.checkpoint import load_checkpoint, save_checkpoint
from minugan_training.settings import Augmentation
from pydantic import ValidationError

from wsi_minugan.minugan.bundle import find_bundle, load_bundle
from wsi_minugan.minugan.card import ModelCard


def test_a_card_with_a_second_look_has_test_time_augmentation() -> None:
    card = load_bundle(find_bundle("default")).card
    fields = card.model_dump()
    former = {k: v for k, v in fields.items() if k != "test_time_augmentation"} | {
        "second_look": {"least_score": 0.3}
    }
    found = ModelCard.model_validate(former).test_time_augmentation
    assert found is not None
    assert found.least_score == 0.3
    assert "second_look" not in ModelCard.model_validate(former).model_dump_json()


def test_a_name_that_there_never_was_is_refused() -> None:
    with pytest.raises(ValidationError, match="third_look"):
        ModelCard.model_validate(
            load_bundle(find_bundle("default")).card.model_dump() | {"third_look": {"least_score": 0.3}}
        )


def test_an_experiment_with_a_style_transfers_stains() -> None:
    assert Augmentation.model_validate({"style": 0.4}) == Augmentation(stain_transfer=0.4)


def test_a_checkpoint_with_a_judge_has_a_discriminator(tmp_path: Path) -> None:
    tensors = {
        "judge.weight": torch.ones(2),
        "judge_optimizer.0.step": torch.ones(1),
        "network.w": torch.ones(1),
    }
    save_checkpoint(tmp_path, tensors, {"judge_optimizer": {}, "running": {"judge": 0.5}, "step": 3})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert sorted(loaded[0]) == ["discriminator.weight", "discriminator_optimizer.0.step", "network.w"]
    assert loaded[1] == {"discriminator_optimizer": {}, "running": {"discriminator": 0.5}, "step": 3}


def test_choose_is_a_hidden_name_of_tune() -> None:
    run = CliRunner().invoke
    assert "choose" not in run(app, ["--help"]).output
    former, now = (run(app, [name, "--help"]).output.split("\n", 1)[1] for name in ("choose", "tune"))
    assert former == now
