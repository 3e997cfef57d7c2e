"""Touching nuclei split along a line of background, by a watershed of the distance to their edge.

What becomes of an object depends on its own pixels alone: not on where it lies, what lies around it, or how a slide is cut into
blocks. So each object is split once it is whole. The arithmetic is of whole numbers, or of floats that hold such exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.segmentation.classes import BACKGROUND, NUCLEUS, Thresholds, class_map
from wsi_minugan.segmentation.objects import ObjectCut, without_dropped
from wsi_minugan.segmentation.run_lengths import RunLengthMask, combined, run_length_mask
from wsi_minugan.segmentation.shelves import moved, shelved

_SIXTEENTHS = 16
_LEVELS = 64
"""Levels of height in a pixel of distance."""
_CANVAS_PX = 2**18  # so small that it stays in the processor's cache
_LARGEST_BOX_PX = 2**24
"""Area of an object's box from which on it stays whole: its mask would take much memory, however thin it is."""
_FULL_3 = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Splitting:
    """How touching nuclei are split, in pixels of the mask.

    Attributes
    ----------
    smoothing_px : float
        Standard deviation of the smoothing of distances; it is rounded to what two box means can give.
    least_depth_px : float
        By how much the distance to the edge must fall between two nuclei, from the lower of their two peaks to the neck.
    least_area_px, largest_area_px : float
        Objects smaller or larger than that stay whole.
    hole_px : float
        Holes up to this area do not count as edges.
    """

    smoothing_px: float
    least_depth_px: float
    least_area_px: float
    largest_area_px: float
    hole_px: float = 0.0

    @property
    def window_px(self) -> int:
        """Side of the two box means, which is odd.

        Returns
        -------
        int
            1 for no smoothing.
        """
        # Two box means of side w have a variance of (w**2 - 1) / 6.
        return 1 + 2 * round((math.sqrt(6 * self.smoothing_px**2 + 1) - 1) / 2)

    def may_split(self, area_px: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which objects are of a size that is split.

        Parameters
        ----------
        area_px : ndarray of int, shape (n,)
            Pixels of each object.
        boxes : ndarray of int, shape (4, n)
            Each object's top, left, bottom, right (half-open).

        Returns
        -------
        ndarray of bool, shape (n,)
            One value for each object.
        """
        fits = (area_px >= self.least_area_px) & (area_px <= self.largest_area_px)
        return fits & (_box_px(boxes) <= _LARGEST_BOX_PX)


@dataclass(frozen=True)
class SplitObjects:
    """Objects that were several, and their pieces.

    Attributes
    ----------
    split : ndarray of bool, shape (n,)
        Which of the objects given fell apart.
    pieces : RunLengthMask
        Their pieces, 8-connected and numbered from 1, in the frame of the mask given.
    """

    split: NDArray[np.bool_]
    pieces: RunLengthMask

    def applied(self, found: RunLengthMask) -> RunLengthMask:
        """Return the mask in which the pieces take the place of the objects that fell apart.

        Parameters
        ----------
        found : RunLengthMask
            The mask that was given.

        Returns
        -------
        RunLengthMask
            In raster order. Objects are numbered anew, the whole ones first.
        """
        if not self.split.any():
            return found
        number = np.zeros(len(self.split) + 1, np.int32)
        number[1:][~self.split] = np.arange(1, np.count_nonzero(~self.split) + 1)
        rest = found.of(number[found.labels] > 0)
        labels = np.concatenate([number[rest.labels], self.pieces.labels + number.max()])
        return combined(found.shape, [rest, self.pieces], labels)


def split_touching(found: RunLengthMask, wanted: NDArray[np.bool_], rule: Splitting) -> SplitObjects:
    """Split those of the wanted objects that are several touching nuclei.

    Parameters
    ----------
    found : RunLengthMask
        Whole objects, and others that are not wanted.
    wanted : ndarray of bool, shape (n,)
        Which of labels 1..n may be split.
    rule : Splitting
        Where touching nuclei are split.

    Returns
    -------
    SplitObjects
        Which fell apart, and their pieces.
    """
    boxes = found.boxes[:, : len(wanted)]
    area = np.bincount(found.labels, found.lengths, minlength=len(wanted) + 1)[1:].astype(np.int64)
    which = np.flatnonzero(wanted & rule.may_split(area, boxes))
    split, pieces, labels, count = np.zeros(len(wanted), bool), [], [], 0
    for group in _groups(which, _box_px(boxes)):
        fell_apart, found_here = _pieces(found, group, rule)
        split[fell_apart] = True
        pieces.append(found_here)
        labels.append(found_here.labels + np.int32(count))
        count += found_here.count
    if not count:
        return SplitObjects(split, found.of(np.zeros(len(found.labels), bool)))
    return SplitObjects(split, combined(found.shape, pieces, np.concatenate(labels)))


def split_classes(classes: NDArray[np.uint8], rule: Splitting) -> NDArray[np.uint8]:
    """Return the class map of a whole image with touching nuclei split.

    Parameters
    ----------
    classes : ndarray of uint8, shape (h, w)
        Class of every pixel.
    rule : Splitting
        Where touching nuclei are split.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        Background on the lines between touching nuclei; other classes are as they were.
    """
    runs = run_length_mask(classes == NUCLEUS)
    done = split_touching(runs, np.ones(runs.count, bool), rule)
    out = classes.copy()
    runs.of(done.split[runs.labels - 1]).paint(out, BACKGROUND)
    done.pieces.paint(out, NUCLEUS)
    return out


def classes_of_image(
    scores: NDArray[np.uint8], cut: Thresholds, rule: Splitting | None, cuts: Mapping[int, ObjectCut]
) -> NDArray[np.uint8]:
    """Return the class map that a run makes of a whole image: touching nuclei are split, and dropped objects are left out.

    Parameters
    ----------
    scores : ndarray of uint8, shape (3, h, w)
        255 times the score of nucleus, mitosis, boundary.
    cut : Thresholds
        Of the scores.
    rule : Splitting, optional
        Where touching nuclei are split; without it they stay joined.
    cuts : mapping of int to ObjectCut
        Which objects are kept, by class.

    Returns
    -------
    ndarray of uint8, shape (h, w)
        Class of every pixel.
    """
    found = class_map(scores, cut)
    return without_dropped(found if rule is None else split_classes(found, rule), scores[1], cuts)


def splitting_px(
    mpp: float,
    *,
    smoothing_um: float,
    least_depth_um: float,
    least_area_um2: float,
    largest_area_um2: float,
    hole_um2: float,
) -> Splitting:
    """Convert a model card's rule from um and um2 to pixels.

    Parameters
    ----------
    mpp : float
        um per pixel of the mask.
    smoothing_um, least_depth_um : float
        See `Splitting`.
    least_area_um2, largest_area_um2, hole_um2 : float
        See `Splitting`.

    Returns
    -------
    Splitting
        In px of the mask.
    """
    areas = (a / mpp**2 for a in (least_area_um2, largest_area_um2, hole_um2))
    return Splitting(smoothing_um / mpp, least_depth_um / mpp, *areas)


def _box_px(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    area: NDArray[np.int64] = (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    return area


def _groups(which: NDArray[np.int64], box_px: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield objects, as many at a time as one canvas holds; those of a size together, for large ones take more steps."""
    if len(which):
        which = which[np.argsort(box_px[which], kind="stable")]
        canvas = np.cumsum(box_px[which]) // _CANVAS_PX
        yield from np.split(which, np.flatnonzero(np.diff(canvas)) + 1)


def _pieces(
    found: RunLengthMask, group: NDArray[np.int64], rule: Splitting
) -> tuple[NDArray[np.int64], RunLengthMask]:
    """Return the objects of a group that fall apart, and their pieces."""
    wanted = np.zeros(found.count, bool)
    wanted[group] = True
    gap = rule.window_px
    shift = shelved(found.boxes, group, gap)
    # Blank pixels around it, for the canvas's edge is none of an object's.
    canvas = np.pad(moved(found, wanted, shift), gap)
    shift = shift + gap
    filled = _filled(canvas, rule.hole_px)
    objects = cv2.connectedComponents(filled, connectivity=8)[1]
    lines, fell_apart = _lines(filled, objects, rule)
    owner = np.zeros(len(group) + 1, np.int64)
    owner[objects[tuple((found.firsts + shift)[:, group])]] = group
    pieces = run_length_mask((canvas > 0) & ~lines & fell_apart[objects])
    down, across = shift[:, owner[objects[pieces.rows, pieces.starts]]].astype(np.int32)
    return owner[fell_apart], RunLengthMask(
        found.shape, pieces.rows - down, pieces.starts - across, pieces.ends - across, pieces.labels
    )


def _filled(canvas: NDArray[np.uint8], hole_px: float) -> NDArray[np.uint8]:
    """Return the mask with its small holes filled."""
    holes, labels, stats, _ = cv2.connectedComponentsWithStats(1 - canvas, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= hole_px
    small[[0, labels[0, 0]]] = False  # the objects, and what lies around all of them
    return (canvas | small[labels]).astype(np.uint8) if holes else canvas


def _lines(
    filled: NDArray[np.uint8], objects: NDArray[np.int32], rule: Splitting
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the lines that split objects, and for each label whether it has any."""
    height = _heights(filled, rule.window_px)
    peaks = run_length_mask(_peaks(height, max(1, round(_LEVELS * rule.least_depth_px))) > 0)
    whose = objects[peaks.rows, peaks.starts].astype(np.int64)
    several = np.bincount(np.unique(whose * (peaks.count + 1) + peaks.labels) // (peaks.count + 1)) > 1
    several = np.pad(several, (0, int(objects.max()) + 1 - len(several)))
    inside = several[objects]
    if not several.any():
        return inside, several
    seeds = np.zeros(filled.shape, np.int32)
    peaks.paint(seeds, peaks.labels)
    basins = _basins(height, seeds, objects, several)
    # scikit-image's own lines take six times as long. Labels are exact in float32.
    higher = cv2.dilate(basins.astype(np.float32), _FULL_3)
    return inside & (basins < higher), several


def _basins(
    height: NDArray[np.uint16],
    seeds: NDArray[np.int32],
    objects: NDArray[np.int32],
    several: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Return the seed whose hill each pixel of the objects with several seeds lies on; 0 elsewhere.

    Each object has a watershed of its own: where heights are equal, the order in which pixels are taken depends on all pixels of a
    watershed.
    """
    from scipy.ndimage import find_objects  # these take a second to load, which few processes need
    from skimage.segmentation import watershed

    out = np.zeros(seeds.shape, np.int32)
    for label, box in enumerate(find_objects(objects), 1):
        if box is not None and several[label]:
            own = objects[box] == label
            hills = watershed(
                -height[box].astype(np.int32), np.where(own, seeds[box], 0), connectivity=2, mask=own
            )
            out[box][own] = hills[own]
    return out


def _heights(filled: NDArray[np.uint8], window_px: int) -> NDArray[np.uint16]:
    """Return the smoothed distance of each pixel to the edge of its object, in `_LEVELS` a pixel; 0 outside."""
    distance = cv2.distanceTransform(filled, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    sums = np.rint(_SIXTEENTHS * distance)
    for _ in range(2):
        # Sums of whole numbers below 2**24 are exact in float32, in whatever order they are made.
        sums = cv2.boxFilter(sums, -1, (window_px,) * 2, normalize=False, borderType=cv2.BORDER_CONSTANT)
    levels = np.floor(sums * np.float32(_LEVELS / _SIXTEENTHS / window_px**4))
    return np.where(filled > 0, np.clip(levels, 1, 2**16 - 1), 0).astype(np.uint16)


def _peaks(height: NDArray[np.uint16], depth: int) -> NDArray[np.uint8]:
    """Return the maxima from which one must go down by more than a depth to reach a higher place (h-maxima)."""
    low = _raised(cv2.subtract(height, np.full_like(height, depth)), height)
    return (low > _raised(cv2.subtract(low, np.ones_like(low)), low)).astype(np.uint8)


def _raised(seed: NDArray[np.uint16], ceiling: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the greyscale reconstruction of a ceiling from a seed below it (Vincent 1993)."""
    while True:
        grown = cv2.min(cv2.dilate(seed, _FULL_3), ceiling)
        if np.array_equal(grown, seed):
            return np.asarray(grown, np.uint16)
        seed = np.asarray(grown, np.uint16)
