"""Which patches a batch is made of; a step's batch depends on the seed and the step alone, so training resumes exactly."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.data.index import Entry, points_of
from minugan_training.data.labels import MITOSES, Sample, enlargement, load_sample, mitosis_truth
from minugan_training.sampling.augmentation import Patch, change_stains, cut_patch
from minugan_training.sampling.stain_transfer import StainStatistics, stain_statistics_of, transfer_stain
from minugan_training.settings import Experiment, Source
from wsi_minugan.errors import DataError

CACHE_BYTES = 6 * 2**30
STAIN_IMAGES = 12
"""Images of a slide that tell its stain statistics."""
Place = tuple[int, float, float]
"""Index of an entry, and x, y in its sample's pixels."""


class Pool:
    """Samples of an index, read when needed and kept within bounds.

    Parameters
    ----------
    root : Path
        What the index's paths are below.
    entries : sequence of Entry
        The index.
    complete : callable, optional
        Fills in labels of images whose nuclei are unknown; see `pseudo.PseudoNuclei`.
    """

    def __init__(
        self, root: Path, entries: Sequence[Entry], complete: Callable[[Sample], Sample] | None = None
    ) -> None:
        self.root = root
        self._complete = complete
        self.entries = tuple(entries)
        self._samples: OrderedDict[int, Sample] = OrderedDict()
        self._centres: dict[int, NDArray[np.float64]] = {}
        self._slides: dict[tuple[str, str, str], list[int]] = {}
        for k, e in enumerate(self.entries):
            self._slides.setdefault(_slide(e), []).append(k)
        self._stains: dict[tuple[str, str, str], StainStatistics | None] = {}
        self._only: tuple[Place, ...] | None = None
        self._hidden: frozenset[str] = frozenset()

    def only(self, places: Sequence[Place], hidden: Collection[str] = ()) -> Pool:
        """Return a pool whose mitoses are these places and no others, without the patients `hidden`; for cross-validation.

        Parameters
        ----------
        places : sequence of Place
            The mitoses that are left.
        hidden : collection of str
            Patients whose images are not drawn from.

        Returns
        -------
        Pool
            It shares the images that are in memory.
        """
        part = copy.copy(self)  # both read into one cache
        part._hidden, part._only = frozenset(hidden), tuple(places)
        return part

    def sample(self, index: int) -> Sample:
        """Return an entry's image and labels.

        Parameters
        ----------
        index : int
            Place of the entry in the index.

        Returns
        -------
        Sample
            Kept in memory.
        """
        if index not in self._samples:
            self._samples[index] = self._load(index)
            while self._cached_bytes() > CACHE_BYTES and len(self._samples) > 1:
                self._samples.popitem(last=False)
        self._samples.move_to_end(index)
        return self._samples[index]

    def _load(self, index: int) -> Sample:
        loaded = load_sample(self.root, self.entries[index])
        if self._complete is not None and self.entries[index].nuclei == "unknown":
            loaded = self._complete(loaded)
        return loaded

    def _truth(self, index: int) -> NDArray[np.float64]:
        """Return x, y of an entry's mitoses, ``(n, 2)``; the centre of pixel 0 is at 0.5."""
        return mitosis_truth(self.root, self.entries[index], self.sample(index))

    def _cached_bytes(self) -> int:
        # Derived, because the pools of a cross-validation's folds share one cache.
        return sum(s.image.nbytes + s.labels.nbytes for s in self._samples.values())

    def stain_statistics(self, index: int) -> StainStatistics | None:
        """Return the stain statistics of the slide that an entry is of; None if no tissue is seen on it.

        Parameters
        ----------
        index : int
            Place of the entry in the index.

        Returns
        -------
        StainStatistics or None
            Kept in memory.
        """
        slide = _slide(self.entries[index])
        if slide not in self._stains:
            self._stains[slide] = stain_statistics_of(
                self.sample(k) for k in self._slides[slide][:STAIN_IMAGES]
            )
        return self._stains[slide]

    def slides_among(self, indices: Iterable[int]) -> list[int]:
        """Return one entry of each slide that entries are of.

        Parameters
        ----------
        indices : iterable of int
            Places of entries in the index.

        Returns
        -------
        list of int
            Sorted.
        """
        firsts = {_slide(self.entries[k]): k for k in sorted(set(indices), reverse=True)}
        return sorted(firsts.values())

    def matching(self, datasets: Sequence[str], splits: Sequence[str]) -> list[int]:
        """Return the entries of data sets in splits; "" is the split of images that are in none.

        Parameters
        ----------
        datasets : sequence of str
            Names of data sets; all where there are none.
        splits : sequence of str
            Names of splits.

        Returns
        -------
        list of int
            Places in the index.
        """
        return [
            k
            for k, e in enumerate(self.entries)
            if e.dataset in datasets and e.split in splits and e.patient not in self._hidden
        ]

    def of(self, source: Source) -> list[int]:
        """Return the entries a source draws from.

        Parameters
        ----------
        source : Source
            Of the experiment.

        Returns
        -------
        list of int
            Places in the index.

        Raises
        ------
        DataError
            If there are none.
        """
        found = self.matching(source.datasets, source.splits)
        if not found:
            raise DataError(f"The index has no images of {_in_words(source)}. Import them first.")
        return found

    def mitosis_centres(self, index: int) -> NDArray[np.float64]:
        """Return x, y of an entry's mitoses in its sample's pixels, shape ``(n, 2)``; one each, in however many pieces.

        Parameters
        ----------
        index : int
            Place of the entry in the index.

        Returns
        -------
        ndarray of float, shape (n, 2)
            The centre of pixel 0 is at 0.
        """
        if index not in self._centres:
            # From edges of pixels to their middles, as patches are cut.
            self._centres[index] = self._truth(index) - 0.5
        return self._centres[index]

    def mitoses_on(self, indices: Iterable[int]) -> list[Place]:
        """Return the places of the labelled mitoses on entries, whatever `only` left.

        Parameters
        ----------
        indices : iterable of int
            Places of entries in the index.

        Returns
        -------
        list of Place
            Entry, x and y.
        """
        return [(k, float(x), float(y)) for k in indices for x, y in self.mitosis_centres(k)]

    def look_alikes_on(self, index: int) -> list[tuple[float, float]]:
        """Return x, y of an entry's look-alikes in its sample's pixels.

        Parameters
        ----------
        index : int
            Place of the entry in the index.

        Returns
        -------
        list of (float, float)
            The centre of pixel 0 is at 0.
        """
        factor = enlargement(self.entries[index].mpp)
        return [(x * factor - 0.5, y * factor - 0.5) for x, y in points_of(self.entries[index].look_alikes)]

    def look_alikes_of(self, source: Source) -> list[Place]:
        """Return the places of the look-alikes that a source draws from.

        Parameters
        ----------
        source : Source
            Of the experiment.

        Returns
        -------
        list of Place
            Entry, x and y.

        Raises
        ------
        DataError
            If there are none.
        """
        places = [(k, x, y) for k in self.of(source) for x, y in self.look_alikes_on(k)]
        if not places:
            raise DataError(f"The images of {_in_words(source)} hold no look-alikes.")
        return places

    def mitoses_of(self, source: Source) -> list[Place]:
        """Return the places of the labelled mitoses that a source draws from.

        Parameters
        ----------
        source : Source
            Of the experiment.

        Returns
        -------
        list of Place
            Entry, x and y.

        Raises
        ------
        DataError
            If none of the source's images holds a labelled mitosis.
        """
        if self._only is not None:
            wanted = set(self.of(source))
            return [p for p in self._only if p[0] in wanted]
        places = self.mitoses_on(self.of(source))
        if not places:
            raise DataError(f"The images of {_in_words(source)} hold no mitoses.")
        return places


def _slide(entry: Entry) -> tuple[str, str, str]:
    return entry.dataset, entry.patient, entry.scanner


def _in_words(source: Source) -> str:
    splits = " or ".join(f"the split '{s}'" if s else "no split" for s in source.splits)
    return f"{', '.join(source.datasets)} in {splits}"


def dark_places(pool: Pool, source: Source, per_image: int) -> list[Place]:
    """Return the darkest nuclei of images whose negatives are known: the first hard negatives.

    Parameters
    ----------
    pool : Pool
        Samples.
    source : Source
        Which images.
    per_image : int
        How many on each at most.

    Returns
    -------
    list of Place
        Entry, x and y.
    """
    places: list[Place] = []
    for k in pool.of(source):
        sample = pool.sample(k)
        grey = cv2.GaussianBlur(sample.image.astype(np.float32).mean(axis=2), (0, 0), 4)
        lowest = cv2.erode(grey, np.ones((25, 25), np.uint8))
        forbidden = cv2.dilate(
            (sample.labels[..., MITOSES] != 0).astype(np.uint8), np.ones((15, 15), np.uint8)
        )
        ys, xs = np.nonzero((grey == lowest) & (forbidden == 0))
        for at in np.argsort(grey[ys, xs])[:per_image]:
            places.append((k, float(xs[at]), float(ys[at])))
    return places


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
        strength = self._experiment.augmentation.stain if rng.random() < 0.9 else 0.0
        scaled = change_stains(images, strength, rng) / np.float32(127.5) - np.float32(1)
        return Batch(
            np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)),
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
