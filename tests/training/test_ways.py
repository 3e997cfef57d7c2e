"""Other ways of training: several processes, early stop, mosaics."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from minugan_training.data.index import write_index
from minugan_training.data.labels import IGNORE, MITOSES, NUCLEI
from minugan_training.fitting.fit import BEST, fit
from minugan_training.fitting.metrics_log import read_metrics
from minugan_training.fitting.pseudo_labels import PseudoNuclei, pool_for
from minugan_training.sampling.pool import Pool
from minugan_training.sampling.sampler import Sampler
from minugan_training.settings import Experiment
from safetensors.torch import load_file

from tests.training.test_data import experiment, pool, write

RUN = """
import sys
from pathlib import Path
import torch
from minugan_training.fitting.fit import fit
from minugan_training.data.index import read_index
from minugan_training.sampling.pool import Pool
from minugan_training.settings import Experiment
torch.set_num_threads(1)
root = Path(sys.argv[1])
fit(Experiment.model_validate_json((root / "e.json").read_text()), Pool(root, read_index(root / "i.csv")), root / sys.argv[2])
"""


def small(**changes: object) -> Experiment:
    common = {"ngf": 2, "losses": {"supervised": 1.0}, "log_every": 1, "checkpoint_every": 2, "steps": 3}
    return Experiment.model_validate(experiment().model_dump() | common | changes)


def test_two_processes_train_as_one_that_accumulates_two_batches(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    write_index(tmp_path / "i.csv", p.entries)
    (tmp_path / "e.json").write_text(small().model_dump_json())
    (tmp_path / "run.py").write_text(RUN)
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29653"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*call, str(tmp_path / "run.py"), str(tmp_path), "two"],
        capture_output=True, text=True, timeout=200, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two = load_file(tmp_path / "two" / "weights.safetensors")
    one = fit(small(accumulate=2), p, tmp_path / "one")
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-4), name
    assert [r["step"] for r in read_metrics(tmp_path / "two")] == [1, 2, 3]


def test_training_ends_when_the_validation_does_not_grow_and_the_best_weights_stay(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    both = [*p.entries, p.entries[0].model_copy(update={"split": "val"})]
    stop = {"every_steps": 1, "patience": 2, "patches": 2}
    s = small(steps=40, validation=stop, learning_rate=1e-9)
    weights = fit(s, Pool(tmp_path, both), tmp_path / "run")
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["step"] < 40
    assert all("validation" in r for r in rows)
    best = load_file(tmp_path / "run" / BEST)
    assert all(torch.equal(weights[k], v) for k, v in best.items())


def test_a_mosaic_fills_the_patch_that_a_small_crop_would_leave_unknown(tmp_path: Path) -> None:
    p = pool(tmp_path)
    source = {"datasets": ("rgb",), "at": "mitoses", "per_batch": 4}
    plain, mosaic = (
        Sampler(p, Experiment.model_validate(
            experiment().model_dump() | {"sources": (source | {"mosaic": share},), "patch_px": 512}
        )).batch(0)
        for share in (0.0, 1.0)
    )  # fmt: skip
    assert plain[0].shape == mosaic[0].shape == (4, 3, 512, 512)
    unknown = [float((b.labels[:, 1] == IGNORE).mean()) for b in (plain, mosaic)]
    assert unknown[1] < unknown[0]
    assert np.isfinite(mosaic[0]).all()


def test_pseudo_labels_fill_only_what_is_unknown_and_sure(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    entry = p.entries[0].model_copy(update={"nuclei": "unknown", "nuclei_kind": "", "nuclei_truth": ""})
    plain = Pool(tmp_path, [entry]).sample(0)
    filled = Pool(tmp_path, [entry], PseudoNuclei("default").fill).sample(0)
    known = plain.labels != IGNORE
    assert np.array_equal(plain.labels[known], filled.labels[known])
    assert (filled.labels[..., NUCLEI] == 1).sum() > (plain.labels[..., NUCLEI] == 1).sum()
    assert np.array_equal(filled.labels[..., MITOSES], plain.labels[..., MITOSES])
    wanted = small(pseudo_nuclei="default")
    assert np.array_equal(pool_for(wanted, tmp_path, [entry]).sample(0).labels, filled.labels)
    assert np.array_equal(pool_for(small(), tmp_path, [entry]).sample(0).labels, plain.labels)
    labelled = Pool(tmp_path, p.entries, PseudoNuclei("default").fill).sample(0)
    assert np.array_equal(labelled.labels, p.sample(0).labels)


def test_pseudo_labels_leave_what_is_to_be_ignored_unknown(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    paint = np.zeros((320, 320), np.uint8)
    paint[:100] = 255
    write(tmp_path / "paint.png", paint)
    nobody = {"nuclei": "unknown", "nuclei_kind": "", "nuclei_truth": "", "ignore": "paint.png"}
    labels = (
        Pool(tmp_path, [p.entries[0].model_copy(update=nobody)], PseudoNuclei("default").fill)
        .sample(0)
        .labels
    )
    assert (labels[:100] == IGNORE).all()
    assert (labels[100:, :, NUCLEI] != IGNORE).any()


def test_both_views_of_a_scene_show_the_same_labels_where_they_overlap(tmp_path: Path) -> None:
    s = small(consistency={"weight": 1.0, "shift_px": 20}, patch_px=64)
    images, labels, offsets = Sampler(pool(tmp_path), s).batch(0)
    n = s.batch
    assert images.shape == labels.shape == (2 * n, 3, 64, 64)
    for k in range(n):
        y, x = np.maximum(offsets[k], offsets[n + k])
        (ya, xa), (yb, xb) = offsets[k], offsets[n + k]
        size_y, size_x = 64 - abs(ya - yb), 64 - abs(xa - xb)
        a, b = (
            labels[i][:, y - t : y - t + size_y, x - u : x - u + size_x]
            for i, (t, u) in ((k, (ya, xa)), (n + k, (yb, xb)))
        )
        assert np.array_equal(a, b)


def test_norms_that_are_fixed_keep_their_statistics(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    p = pool(tmp_path)
    start = fit(small(norm="batch", steps=1), p, tmp_path / "first")
    s = small(
        norm="batch", fixed_norms=True, start_from=str(tmp_path / "first" / "weights.safetensors"),
        consistency={"weight": 1.0, "shift_px": 8}, patch_px=64,
    )  # fmt: skip
    ended = fit(s, p, tmp_path / "second")
    statistics = [k for k in start if k.endswith("running_mean")]
    assert statistics
    assert all(torch.allclose(start[k], ended[k]) for k in statistics)
    assert any(not torch.equal(start[k], ended[k]) for k in start if k.endswith("weight"))
