"""Which patches a batch is made of; a step's batch depends on the seed and the step alone, so training resumes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minugan_training.sampling.augmentation import Patch, batch_input, cut_patch
from minugan_training.sampling.pool import Place, Pool
from minugan_training.sampling.stain_transfer import transfer_stain
from minugan_training.settings import Experiment, Source


class Batch(NamedTuple):
    """What one step is shown.

    Attributes
    ----------
    images : ndarray of float32, shape (n, 3, h, w)
        RGB / 127.5 - 1.
    labels : ndarray of uint8, shape (n, 3, h, w)
        Nuclei, mitoses, boundary: 0, 1 or IGNORE.
    offsets_px : ndarray of int64, shape (n, 2)
        y, x of each patch in its scene; the second half of a batch shows the scenes of the first half again.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    offsets_px: NDArray[np.int64]


class BatchSource(Protocol):
    """What hands out batches."""

    def batch(self, step: int, part: int = 0) -> Batch:
        """Return a step's patches.

        Parameters
        ----------
        step : int
            The step.
        part : int
            Which of the step's batches.

        Returns
        -------
        Batch
            Images, labels and offsets.
        """


class Sampler:
    """Makes batches.

    Parameters
    ----------
    pool : Pool
        Samples.
    experiment : Experiment
        Sources and augmentation.
    """

    def __init__(self, pool: Pool, experiment: Experiment) -> None:
        self._pool = pool
        self._experiment = experiment
        self._places = {
            k: pool.mitoses_of(s) if s.at == "mitoses" else pool.look_alikes_of(s)
            for k, s in enumerate(experiment.sources)
            if s.at in {"mitoses", "look_alikes"}
        }
        self._images = {k: pool.of(s) for k, s in enumerate(experiment.sources)}
        self._slides = pool.slides_among(k for images in self._images.values() for k in images)
        self.hard: list[Place] = []

    def batch(self, step: int, part: int = 0) -> Batch:
        """Return a step's patches; with `consistency` set, a first view of each and then a second view of each.

        Parameters
        ----------
        step : int
            The step.
        part : int
            Which of the step's batches (accumulation, processes).

        Returns
        -------
        Batch
            Images and labels; the same for the same step and seed.
        """
        rng = np.random.default_rng([self._experiment.seed, step, part])
        wanted = self._experiment.consistency
        shift = wanted.shift_px if wanted else 0
        size = self._experiment.patch_px
        scenes = [
            self._mosaic(k, source, size + shift, rng)
            if source.mosaic and rng.random() < source.mosaic
            else self._one(k, source, size + shift, rng)
            for k, source in enumerate(self._experiment.sources)
            for _ in range(source.per_batch)
        ]
        offsets = rng.integers(0, shift + 1, (len(scenes) * (2 if wanted else 1), 2))
        views = [
            tuple(a[y : y + size, x : x + size] for a in scenes[k % len(scenes)])
            for k, (y, x) in enumerate(offsets.tolist())
        ]
        images, labels = (np.stack([v[n] for v in views]) for n in (0, 1))
        return Batch(
            batch_input(images, self._experiment.augmentation.stain, rng),
            np.ascontiguousarray(labels.transpose(0, 3, 1, 2)),
            offsets,
        )

    def _one(self, k: int, source: Source, size_px: int, rng: np.random.Generator) -> Patch:
        i, x, y = self._place(k, source, rng)
        change = self._experiment.augmentation
        image, labels = cut_patch(self._pool.sample(i), (x, y), size_px, change, rng)
        if change.stain_transfer and rng.random() < change.stain_transfer:
            image = self._with_other_stain(image, i, rng)
        return image, labels

    def _with_other_stain(
        self, image: NDArray[np.uint8], index: int, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        other = self._slides[int(rng.integers(len(self._slides)))]
        own, wanted = self._pool.stain_statistics(index), self._pool.stain_statistics(other)
        return image if own is None or wanted is None else transfer_stain(image, own, wanted)

    def _mosaic(self, k: int, source: Source, size_px: int, rng: np.random.Generator) -> Patch:
        """Return a patch of four of half its side: small crops fill it, where one alone would leave most of it unknown."""
        parts = [self._one(k, source, (size_px + 1) // 2, rng) for _ in range(4)]
        images, labels = ([p[n] for p in parts] for n in (0, 1))
        return tuple(  # type: ignore[return-value]
            np.vstack([np.hstack(v[:2]), np.hstack(v[2:])])[:size_px, :size_px] for v in (images, labels)
        )

    def _drawn(self, places: Sequence[Place], source: Source, rng: np.random.Generator) -> Place:
        """Draw one of some places; of a patient drawn before, where each patient has one voice."""
        if source.even:
            patients = sorted({self._pool.entries[p[0]].patient for p in places})
            patient = patients[int(rng.integers(len(patients)))]
            places = [p for p in places if self._pool.entries[p[0]].patient == patient]
        return places[int(rng.integers(len(places)))]

    def _place(self, k: int, source: Source, rng: np.random.Generator) -> Place:
        if source.at in {"mitoses", "look_alikes"}:
            return self._drawn(self._places[k], source, rng)
        if source.at == "hard" and self.hard:
            return self._drawn(self.hard, source, rng)
        index, _, _ = self._drawn([(i, 0.0, 0.0) for i in self._images[k]], source, rng)
        h, w = self._pool.sample(index).image.shape[:2]
        margin = self._experiment.patch_px * 0.55
        x, y = (rng.uniform(min(margin, v / 2), max(v - margin, v / 2)) for v in (w, h))
        return index, float(x), float(y)
