"""A folder that the user removed while a run goes on stays away, and no advice removes more than it must."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from minugan_jobs.state.disk_space import check_space

from wsi_minugan.config import RunSettings
from wsi_minugan.errors import RETRY, OutputError
from wsi_minugan.geometry import Box
from wsi_minugan.outputs.atomic import write_text
from wsi_minugan.pipeline.plan import SlidePlan, open_reader, plan_slide
from wsi_minugan.pipeline.planning.plan_file import save_plan
from wsi_minugan.pipeline.scratch import WORK, Scratch
from wsi_minugan.pipeline.stages import prepare_store
from wsi_minugan.segmentation.masks import writing
from wsi_minugan.slides.inputs import SlideInput


@pytest.fixture(scope="module")
def plan(slide: Path) -> SlidePlan:
    settings = RunSettings(block_px=512)
    return plan_slide(SlideInput("s", slide), open_reader(slide, settings), settings, 0.25)


def test_no_stage_makes_a_runs_folder_that_is_gone(tmp_path: Path, plan: SlidePlan) -> None:
    out = tmp_path / "out"
    folder = out / "s"
    with pytest.raises(OutputError, match="cannot be written"):
        prepare_store(plan, folder, nuclei=True)
    out.mkdir()
    prepare_store(plan, folder, nuclei=True)
    save_plan(folder / WORK, plan)
    ones = np.ones((512, 512), np.uint8)
    writing.write_block(folder / "masks.zarr", "classes", Box(0, 0, 512, 512), ones)
    Scratch(folder / WORK).patches.save(0, 0, np.zeros((3, 256, 256), np.uint8))
    shutil.rmtree(out)
    for write in (
        lambda: writing.create_store(folder / "masks.zarr", plan.frame, 512, nuclei=True),
        lambda: writing.write_block(folder / "masks.zarr", "classes", Box(0, 512, 512, 512), ones),
        lambda: Scratch(folder / WORK).patches.save(0, 0, np.zeros((3, 256, 256), np.uint8)),
        lambda: save_plan(folder / WORK, plan),
        lambda: write_text(folder / "count.json", "{}"),
        lambda: write_text(out / "run.json", "{}"),
        lambda: check_space(out, 0.0),
    ):
        with pytest.raises(OutputError, match="cannot be written"):
            write()
        assert not out.exists()


def test_masks_that_are_removed_while_a_block_is_written_do_not_come_back(
    tmp_path: Path, plan: SlidePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prepare_store(plan, out / "s", nuclei=True)
    really = writing._open

    def open_then_remove(path: Path, name: str, level: int) -> object:
        array = really(path, name, level)
        shutil.rmtree(out)
        return array

    monkeypatch.setattr(writing, "_open", open_then_remove)
    with pytest.raises(OutputError, match="cannot be written"):
        writing.write_block(
            out / "s" / "masks.zarr", "classes", Box(0, 0, 512, 512), np.ones((512, 512), np.uint8)
        )
    assert not out.exists()


@pytest.mark.parametrize("content", [None, b"PK broken"])
def test_damaged_scratch_costs_one_slide_and_the_advice_says_so(
    tmp_path: Path, content: bytes | None
) -> None:
    folder = tmp_path / "s" / WORK
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "merged-nuclei.npz").write_bytes(content)
    with pytest.raises(OutputError) as caught:
        Scratch(folder).load_merged("nuclei")
    assert f"Remove the folder {tmp_path / 's'}, then" in str(caught.value)
    assert str(caught.value).endswith(RETRY)


def test_no_message_advises_to_replace_a_whole_run_for_one_slide() -> None:
    root = Path(__file__).parents[2]
    texts = [p.read_text("utf-8") for name in ("wsi_minugan", "jobs") for p in (root / name).rglob("*.py")]
    assert not [t for t in texts if "again with --overwrite" in t]
