"""Images that training draws from: read when needed, kept within bounds, and what lies on them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from minugan_training.data.index import Entry, check_scanners, points_of
from minugan_training.data.labels import MITOSES, Sample, enlargement, load_sample, mitosis_truth
from minugan_training.sampling.stain_transfer import stain_statistics_of
from minugan_training.settings import Source
from wsi_minugan.errors import DataError
from wsi_minugan.minugan.stain import StainStatistics

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
        self._hidden: frozenset[int] = frozenset()

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
        part = self._hiding(lambda e: e.patient in hidden)
        part._only = tuple(places)
        return part

    def without_scanners(self, scanners: Collection[str]) -> Pool:
        """Return a pool that draws nothing from some scanners.

        Parameters
        ----------
        scanners : collection of str
            As the index names them.

        Returns
        -------
        Pool
            It shares the images that are in memory.

        Raises
        ------
        DataError
            If a scanner has no images, as one whose name is misspelt.
        """
        check_scanners(scanners, (e.scanner for e in self.entries), "image")
        return self._hiding(lambda e: e.scanner in scanners)

    def _hiding(self, hides: Callable[[Entry], bool]) -> Pool:
        part = copy.copy(self)  # both read into one cache
        part._hidden = self._hidden | {k for k, e in enumerate(self.entries) if hides(e)}
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
            if e.dataset in datasets and e.split in splits and k not in self._hidden
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
