"""A pack holds what an experiment trains on; from it a bare machine trains, ends by the clock and goes on."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from minugan_training.classification.candidates import LOOK_ALIKE, MITOSIS, PEAK, joined
from minugan_training.classification.train import ClassifierExperiment, train_classifier
from minugan_training.cli.main import app
from minugan_training.data.index import Entry
from minugan_training.fitting.fit import fit
from minugan_training.fitting.losses import distillation_loss
from minugan_training.fitting.metrics_log import read_metrics
from minugan_training.fitting.state import build_network, start
from minugan_training.fitting.step import _Part, _taught, learning_rate
from minugan_training.mean_weights import mean_weights
from minugan_training.packs.candidates import pack_candidates, packed_candidates
from minugan_training.packs.pack import LARGEST_BYTES, MANIFEST, write_pack
from minugan_training.packs.packed_pool import PackedPool
from minugan_training.packs.parts import PARTS, join_weights, split_weights
from minugan_training.sampling import ahead as ahead_module
from minugan_training.sampling.ahead import BatchesAhead
from minugan_training.sampling.pool import Pool
from minugan_training.sampling.sampler import Sampler
from minugan_training.settings import Distillation, Experiment, Source, Validation
from safetensors.torch import load_file, save_file

from tests.training.test_classification import candidates
from tests.training.test_data import experiment, pool
from tests.training.test_fit import settings
from wsi_minugan.errors import DataError, TrainingError
from wsi_minugan.minugan.generator import BlurredConv2d

ROOT = Path(__file__).parents[2]


def three_patients(tmp_path: Path) -> Pool:
    """The drawn label map as the image of three patients, one of them with a look-alike."""
    entry = pool(tmp_path).entries[0]
    told = ({"patient": "a"}, {"patient": "b"}, {"patient": "c", "look_alikes": "100 120"})
    return Pool(tmp_path, [Entry.model_validate(entry.model_dump() | t) for t in told])


def labels_at_mitoses(p: Pool, e: Experiment) -> list[tuple[str, bytes]]:
    """Return each mitosis's patient and the labels around its centre."""
    around = (
        (k, p.sample(k).labels[int(y) - 9 : int(y) + 9, int(x) - 9 : int(x) + 9])
        for k, x, y in p.mitoses_of(e.sources[0])
    )
    return sorted((p.entries[k].patient, labels.tobytes()) for k, labels in around)


def packed(tmp_path: Path, e: Experiment, p: Pool, **more: int) -> PackedPool:
    write_pack(e, p, tmp_path / "a.pack", **more)
    return PackedPool(tmp_path / "a.pack")


def test_a_pack_shows_what_the_experiment_is_shown(tmp_path: Path) -> None:
    p = three_patients(tmp_path)
    alike = Source(datasets=("rgb",), at="look_alikes", per_batch=1)
    e = experiment(sources=(*experiment().sources, alike))
    told = write_pack(e, p, tmp_path / "a.pack", quality=95)
    assert told.mitoses[0] == told.mitoses[1] == len(p.mitoses_of(e.sources[0]))
    assert (told.look_alikes, told.patients) == ((1, 1), 3)
    q = PackedPool(tmp_path / "a.pack")
    assert labels_at_mitoses(q, e) == labels_at_mitoses(p, e)
    k, x, y = q.look_alikes_of(alike)[0]
    around = np.abs(q.sample(k).image[int(y), int(x)].astype(int) - p.sample(2).image[119, 99])
    assert around.max() < 40
    assert Sampler(q, e).batch(0).images.shape == (5, 3, 64, 64)


def test_nothing_is_drawn_from_a_scanner_that_is_left_out(tmp_path: Path) -> None:
    e, p = experiment(), three_patients(tmp_path)
    scanners = ("Aperio", "Leica", "Aperio")
    entries = [x.model_copy(update={"scanner": s}) for x, s in zip(p.entries, scanners, strict=True)]
    whole = Pool(tmp_path, entries)
    for there in (whole, packed(tmp_path, e, whole)):
        part = there.without_scanners(["Leica"])
        assert {part.entries[k].scanner for s in e.sources for k in part.of(s)} == {"Aperio"}
        assert 3 * len(part.mitoses_of(e.sources[0])) == 2 * len(there.mitoses_of(e.sources[0]))
        with pytest.raises(DataError, match="There are: Aperio, Leica"):
            there.without_scanners(["Lieca"])


def test_the_same_data_make_the_same_pack(tmp_path: Path) -> None:
    p = three_patients(tmp_path)
    for name in ("a.pack", "b.pack"):
        write_pack(experiment(), p, tmp_path / name)
    assert (tmp_path / "a.pack").read_bytes() == (tmp_path / "b.pack").read_bytes()


def test_a_small_pack_holds_something_of_every_patient_and_source(tmp_path: Path) -> None:
    e, p = experiment(patch_px=64), three_patients(tmp_path)
    whole = write_pack(e, p, tmp_path / "whole.pack").size_bytes
    room = whole * 3 // 4
    q = packed(tmp_path, e, p, largest_bytes=room)
    assert (tmp_path / "a.pack").stat().st_size <= room < whole
    assert {entry.patient for entry in q.entries} == {"a", "b", "c"}
    assert all(q.of(s) for s in e.sources)
    with pytest.raises(DataError, match="Nothing fits"):
        write_pack(e, p, tmp_path / "b.pack", largest_bytes=2500)


def test_an_experiment_with_a_validation_is_not_packed(tmp_path: Path) -> None:
    e = experiment(validation=Validation(every_steps=1))
    with pytest.raises(DataError, match="Take out 'validation'"):
        write_pack(e, pool(tmp_path), tmp_path / "a.pack")


@pytest.mark.parametrize("fault", ["cut", "no pack", "other format", "other size", "missing"])
def test_a_damaged_pack_is_a_sentence(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pack"
    write_pack(experiment(), pool(tmp_path), path)
    with zipfile.ZipFile(path) as whole:
        files = {n: whole.read(n) for n in whole.namelist()}
    manifest = json.loads(files[MANIFEST])
    if fault == "other format":
        manifest["format"] = 99
    if fault == "other size":
        manifest["regions"][0]["entry"]["width_px"] += 1
    if fault == "missing":
        del files["0.png"]
    with zipfile.ZipFile(path, "w") as pack:
        for name, content in (files | {MANIFEST: json.dumps(manifest).encode()}).items():
            pack.writestr(name, content)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    if fault == "no pack":
        path.write_bytes(b"no pack")
    with pytest.raises(DataError, match=r"pack"):
        PackedPool(path)


@pytest.mark.parametrize("room_bytes", [0, 1 << 40])
def test_batches_are_the_same_whoever_makes_them_and_however_they_travel(
    room_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "room_bytes", lambda: room_bytes)
    p, e = pool(tmp_path), settings("supervised", accumulate=2, mining={"every_steps": 2})
    own, ahead = Sampler(p, e), Sampler(p, e)
    batches = BatchesAhead(ahead, 1, parts=2)
    for step, part in ((0, 0), (0, 1), (1, 0), (5, 1)):
        for a, b in zip(own.batch(step, part), batches.batch(step, part), strict=True):
            assert np.array_equal(a, b)
    own.hard = ahead.hard = [(0, 40.0, 50.0)]
    assert np.array_equal(own.batch(6).images, batches.batch(6).images)


def test_a_run_ends_by_the_clock_and_goes_on(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    e = settings("supervised", steps=100_000, checkpoint_every=100_000)
    p, folder = packed(tmp_path, e, pool(tmp_path)), tmp_path / "run"
    fit(e, p, folder, minutes=0.01)
    ended = read_metrics(folder)[-1]["step"]
    assert 1 <= ended < e.steps
    fit(e, p, folder, minutes=0.001)
    assert read_metrics(folder)[ended]["step"] == ended + 1
    assert (folder / "weights.safetensors").is_file()


def test_the_rate_falls_by_the_clock_or_by_steps() -> None:
    e = settings("supervised", schedule="cosine", steps=10)
    assert learning_rate(e, 5) == learning_rate(e, 0, 0.5) == learning_rate(e, 5, 0.2)
    assert learning_rate(e, 1, 1.0) < 0.01 * learning_rate(e, 0)


def test_a_pupil_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p, teacher = pool(tmp_path), settings("supervised", ngf=4, steps=1)
    fit(teacher, p, tmp_path / "teacher")
    weights = tmp_path / "teacher" / "weights.safetensors"
    pupil = settings("supervised", steps=8, distillation={"teacher": str(weights), "weight": 2.0})
    fit(pupil, p, tmp_path / "pupil")
    rows = read_metrics(tmp_path / "pupil")
    assert rows[-1]["distillation"] < rows[0]["distillation"]
    unnamed = pupil.model_copy(update={"distillation": Distillation()})
    with pytest.raises(TrainingError, match="--teacher"):
        fit(unnamed, p, tmp_path / "b")
    with pytest.raises(TrainingError, match="another kind of network"):
        fit(pupil.model_copy(update={"network": "unet"}), p, tmp_path / "c")


def test_a_teacher_that_sees_mirror_images_says_the_same_of_each_of_them(tmp_path: Path) -> None:
    experiment = settings("supervised", ngf=2, antialias=5)
    torch.manual_seed(0)
    teacher = build_network(experiment).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    labels, offsets = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64)

    def said(shown: torch.Tensor, views: int) -> torch.Tensor:
        return _taught(experiment, teacher, _Part(shown, labels, offsets), views)

    for axes in ((2,), (3,), (2, 3)):
        assert torch.allclose(said(images.flip(axes), 4).flip(axes), said(images, 4), atol=1e-4)
        assert not torch.allclose(said(images.flip(axes), 1).flip(axes), said(images, 1), atol=1e-4)


def test_a_teachers_blur_can_be_another_than_its_pupils(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file(build_network(settings("supervised", ngf=2)).state_dict(), weights)
    given = {"teacher": str(weights), "antialias": True, "views": 4}
    state = start(settings("supervised", ngf=2, antialias=5, distillation=given), torch.device("cpu"))
    assert state.teacher is not None
    sides = [
        {len(m._line) for m in network.modules() if isinstance(m, BlurredConv2d)}
        for network in (state.network, state.teacher)
    ]
    assert sides == [{5}, {3}]


def test_a_teachers_answers_count_where_nobody_labelled() -> None:
    logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
    teacher = torch.full((1, 3, 4, 4), 2.0)
    assert distillation_loss(teacher, teacher, 2.0) == 0
    distillation_loss(logits, teacher, 2.0).backward()
    assert logits.grad is not None
    assert (logits.grad < 0).all()


def test_weights_are_split_and_joined(tmp_path: Path) -> None:
    p, e = pool(tmp_path), settings("supervised", steps=1)
    whole = fit(e, p, tmp_path / "run")
    weights, parts = tmp_path / "run" / "weights.safetensors", tmp_path / "parts"
    written = split_weights(weights, parts, largest_bytes=100_000)
    assert len(written) > 2
    assert max(f.stat().st_size for f in written) <= 100_000
    join_weights(parts, tmp_path / "joined.safetensors")
    joined = load_file(tmp_path / "joined.safetensors")
    assert all(torch.equal(v, joined[k]) for k, v in whole.items())
    split_weights(weights, tmp_path / "half", half=True)
    join_weights(tmp_path / "half", tmp_path / "half.safetensors")
    for name, value in load_file(tmp_path / "half.safetensors").items():
        assert value.dtype == whole[name].dtype
        assert torch.allclose(value.float(), whole[name].float(), rtol=1e-3, atol=1e-6)
    large = tmp_path / "large.safetensors"
    save_file({"wide": torch.full((2, 2), 1e5), "variance": torch.full((3,), 2e5)}, large)
    split_weights(large, tmp_path / "large", half=True)
    join_weights(tmp_path / "large", tmp_path / "back.safetensors")
    assert {k: v.tolist() for k, v in load_file(tmp_path / "back.safetensors").items()} == {
        "wide": [[1e5, 1e5], [1e5, 1e5]], "variance": [2e5] * 3,
    }  # fmt: skip
    written[0].write_bytes(written[0].read_bytes()[:-1])
    with pytest.raises(TrainingError, match="Copy all parts again"):
        join_weights(parts, tmp_path / "b.safetensors")
    told = json.loads((parts / PARTS).read_text())
    (parts / PARTS).write_text(json.dumps(told | {"parts": ["../run/weights.safetensors"]}))
    with pytest.raises(TrainingError, match="name"):
        join_weights(parts, tmp_path / "b.safetensors")


BARE = '''
import importlib.util, runpy, sys
ALLOWED = {"torch", "numpy", "cv2", "pydantic", "yaml", "safetensors", "wsi_minugan", "minugan_training"}
# What torch and pydantic themselves bring along.
ALLOWED |= {"torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "setuptools",
            "typing_extensions", "pydantic_core", "annotated_types", "typing_inspection", "_yaml", "nvidia", "triton"}

class Bare:
    """A finder that finds nothing else, as where nothing else is installed."""
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        return self.finder.find_spec(name, path, target) if known else None

sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]
for top in ("scipy", "tifffile", "click", "distributed"):
    assert importlib.util.find_spec(top) is None
module = sys.argv.pop(1)
runpy.run_module(f"minugan_training.packs.{module}", run_name="__main__")
'''
"""Runs a command where nothing but what a bare machine has can be imported."""


@pytest.mark.slow
def test_a_bare_machine_trains_from_a_pack(tmp_path: Path) -> None:
    e = settings("supervised", precision="bf16", mining={"every_steps": 2}, steps=4)
    write_pack(e, pool(tmp_path), tmp_path / "a.pack")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(e.model_dump(mode="json")))
    call = [
        sys.executable,
        "-c",
        BARE,
        "fit",
        "t.yaml",
        "--pack",
        "a.pack",
        "-o",
        "run",
        "--device",
        "cpu",
        "--workers",
        "2",
    ]
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training'}", "OMP_NUM_THREADS": "1"}
    more = ["--split", "home", "--minutes", "5"]
    done = subprocess.run([*call, *more], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [r["step"] for r in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]
    join_weights(tmp_path / "home", tmp_path / "w.safetensors")
    # The same as in this environment, without other processes.
    own = fit(e, PackedPool(tmp_path / "a.pack"), tmp_path / "own")
    carried = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(v, carried[k]) for k, v in own.items())


def test_the_mean_of_weights_is_that_of_each_number_and_different_networks_have_none(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{k}.safetensors") for k in range(3)]
    for k, name in enumerate(names):
        value = torch.tensor([1.0, float(k == 2)]) * (k + 1)
        save_file({"w": value, "steps": torch.tensor(7)}, name)
    out = tmp_path / "mean.safetensors"
    done = CliRunner().invoke(app, ["weights", "mean", *names, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert {k: v.tolist() for k, v in load_file(out).items()} == {"w": [2.0, 1.0], "steps": 7}
    with pytest.raises(TrainingError, match="no classifier"):
        mean_weights([out], out, 2.0)
    save_file({"head.bias": torch.ones(1), "w": torch.ones(1)}, names[0])
    mean_weights([Path(names[0])], out, 2.5)
    assert {k: v.tolist() for k, v in load_file(out).items()} == {"head.bias": [2.5], "w": [1.0]}
    save_file({"w": torch.zeros(3)}, names[2])
    with pytest.raises(TrainingError, match="different networks"):
        mean_weights([Path(n) for n in names], out)


def packed_crops(folder: Path, n: int = 48) -> Path:
    """Write packed candidates of two patients; returns the file."""
    pack_candidates(candidates(n), folder / f"{n}.candidates", 3_000_000)
    return folder / f"{n}.candidates"


@pytest.mark.slow
def test_a_bare_machine_trains_the_second_stage(tmp_path: Path) -> None:
    e = ClassifierExperiment(name="t", width=4, batch=8, steps=3, log_every=1)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(e.model_dump(mode="json")))
    packs = [str(packed_crops(tmp_path, n)) for n in (48, 16)]
    call = [sys.executable, "-c", BARE, "classify", "t.yaml", "--candidates", *packs, "-o", "run"]
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training'}", "OMP_NUM_THREADS": "1"}
    more = ["--split", "home", "--device", "cpu", "--workers", "1"]
    done = subprocess.run([*call, *more], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "step 3" in done.stdout
    join_weights(tmp_path / "home", tmp_path / "w.safetensors")
    own = train_classifier(e, joined([packed_candidates(Path(p)) for p in packs]), None, tmp_path / "own")
    carried = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(v, carried[k]) for k, v in own.items())


def test_packed_candidates_keep_all_mitoses_and_of_each_patient_the_likeliest_others(tmp_path: Path) -> None:
    found = candidates(400)
    found = replace(found, score=np.random.default_rng(0).random(400))
    file = tmp_path / "a.candidates"
    kept = pack_candidates(found, file, 5_000_000, 90)
    assert file.stat().st_size <= 5_000_000
    back = packed_candidates(file)
    assert back.kind.tolist() == kept.kind.tolist()
    assert np.abs(back.crops.astype(int) - kept.crops).mean() < 60  # of noise, which WebP cannot keep
    assert 220 < len(back.kind) < 400
    for kind in (MITOSIS, LOOK_ALIKE):
        assert (back.kind == kind).sum() == 100
    for patient in ("a", "b"):
        there = found.score[(found.kind == PEAK) & (found.patient == patient)]
        here = back.score[(back.kind == PEAK) & (back.patient == patient)]
        assert sorted(here) == sorted(there)[-len(here) :]
    with pytest.raises(DataError, match="do not fit"):
        pack_candidates(found, file, 200_000)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match="pack-candidates"):
        packed_candidates(file)


def borrowed(folder: Path, *more: str) -> list[Path]:
    """Run the script on the CPU with the experiments in a folder; returns what is taken home."""
    call = [sys.executable, str(ROOT / "training" / "gpu" / "borrowed_machine.py"), "--pack", "a.pack"]
    call += ["--out", "out", "--experiments", ".", "--device", "cpu", "--minutes", "5", "--no-measuring"]
    done = subprocess.run([*call, *more], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    taken = [f for f in (folder / "out").rglob("*") if f.is_file()]
    assert max(f.stat().st_size for f in taken) <= 16_000_000
    return taken


def in_miniature(folder: Path, name: str, **changes: object) -> None:
    """Write one of the project's experiments with two steps of small patches."""
    content = yaml.safe_load((ROOT / "training" / "experiments" / f"{name}.yaml").read_text())
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content | {"steps": 2, "log_every": 1} | changes))


@pytest.mark.slow
def test_the_borrowed_machine_distils_in_miniature(tmp_path: Path) -> None:
    sources = [s.model_dump(mode="json") for s in experiment().sources]
    for name, ngf in (("gpu-teacher", 3), ("gpu-16", 2), ("gpu-8", 1)):
        in_miniature(tmp_path, name, ngf=ngf, patch_px=64, sources=sources)
    write_pack(experiment(), pool(tmp_path), tmp_path / "a.pack")
    taken = borrowed(tmp_path, "--plan", "distil")
    for name in ("gpu-16", "gpu-8"):
        assert "distillation" in read_metrics(tmp_path / "out" / name)[-1]
        join_weights(tmp_path / "out" / name, tmp_path / f"{name}.safetensors")
    assert not any("teacher" in f.name and f.suffix == ".safetensors" for f in taken)


@pytest.mark.slow
def test_the_borrowed_machine_goes_on_in_miniature(tmp_path: Path) -> None:
    sources = [s.model_dump(mode="json") for s in experiment().sources]
    in_miniature(
        tmp_path, "ship-13", ngf=1, patch_px=64, sources=sources, fixed_norms=False, consistency=None
    )
    for name in ("efficientnet-2", "efficientnet-3", "efficientnet-2-all", "efficientnet-3-all"):
        in_miniature(tmp_path, f"second-stage/{name}", network="residual", width=4, batch=8)
    write_pack(experiment(), pool(tmp_path), tmp_path / "a.pack")
    train, val = packed_crops(tmp_path), packed_crops(tmp_path, 16)
    borrowed(tmp_path, "--candidates", str(train), "--val", str(val))
    for name in ("ship-13", "efficientnet-2", "efficientnet-3-all"):
        join_weights(tmp_path / "out" / name, tmp_path / f"{name}.safetensors")


def test_fit_takes_a_pack_or_an_index(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(experiment().model_dump(mode="json")))
    call = ["fit", str(tmp_path / "t.yaml"), "-o", str(tmp_path / "run"), "--pack", "a", "--index", "b"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2
    assert "either a pack" in done.output
    assert LARGEST_BYTES == 28_000_000
