"""Synthetic slides: H&E-like, seeded, with known mitoses; for the demo, tests and benchmarks. No pixel comes from a patient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_minugan.geometry import Box

TILE_PX = 256
REDUCTION = 8
_SITE_PX = 44
_REACH_PX = 36
_TEXTURE_PX = 1024
_MITOSIS_SCALE = 1.1
_OPTICS_PX = 1.2
"""Blur of a scanner's optics at 0.25 um/px (standard deviation): no real slide has edges as sharp as a drawing's."""
_GLASS = (243, 242, 245)
# Optical densities of haematoxylin in RGB (Ruifrok and Johnston 2001), and of an eosin as orange as most laboratories'.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.20, 0.80, 0.35]], np.float32)
_QUALITY = 88


@dataclass(frozen=True)
class SyntheticSlide:
    """A slide that can be drawn anywhere, piece by piece.

    Attributes
    ----------
    width_px, height_px : int
        Size of level 0.
    seed : int
        Decides everything else.
    mpp : float
        um/px of level 0; nuclei are sized by it.
    tissue_fraction : float
        Share of the slide that its one oval piece of tissue covers; 0 is a blank slide.
    mitoses : int
        Wanted number of mitoses.
    """

    width_px: int
    height_px: int
    seed: int = 7
    mpp: float = 0.25
    tissue_fraction: float = 0.6
    mitoses: int = 24

    @cached_property
    def mitoses_xy_px(self) -> NDArray[np.float64]:
        """Centres of the mitoses, level-0 px, shape ``(n, 2)``; inside the tissue and apart from each other.

        Returns
        -------
        ndarray of float, shape (n, 2)
            x, y; the same for the same seed.
        """
        rng = np.random.default_rng([self.seed, 1])
        found: list[NDArray[np.float64]] = []
        for _ in range(400 * self.mitoses):
            if len(found) == self.mitoses or self.tissue_fraction == 0:
                break
            point = rng.uniform(0, 1, 2) * [self.width_px, self.height_px]
            if self._depth(point[0], point[1]) > 0.1 and all(np.hypot(*(point - f)) > 120 for f in found):
                found.append(point)
        return np.array(found, np.float64).reshape(-1, 2)

    def _depth(
        self, x: float | NDArray[np.float64], y: float | NDArray[np.float64]
    ) -> float | NDArray[np.float64]:
        """Return how deep in the tissue a place is: above 0 inside, 1 at its centre."""
        u, v = 2 * np.asarray(x) / self.width_px - 1, 2 * np.asarray(y) / self.height_px - 1
        angle = np.arctan2(v, u)
        edge = 1 + 0.06 * np.sin(3 * angle + self.seed) + 0.03 * np.sin(7 * angle)
        radius = math.sqrt(4 * self.tissue_fraction / math.pi) * edge
        return np.asarray(1 - np.hypot(u, v) / np.maximum(radius, 1e-9))

    def is_glass(self, box: Box) -> bool:
        """Return whether a box of level-0 pixels holds no tissue.

        Parameters
        ----------
        box : Box
            Level-0 px.

        Returns
        -------
        bool
            False also where only its surroundings hold tissue.
        """
        ys = np.linspace(box.y_px - _REACH_PX, box.y_end_px + _REACH_PX, 9)
        xs = np.linspace(box.x_px - _REACH_PX, box.x_end_px + _REACH_PX, 9)
        return self.tissue_fraction == 0 or bool(np.max(self._depth(xs[None, :], ys[:, None])) <= 0)

    def draw(self, box: Box) -> NDArray[np.uint8]:
        """Return a region as RGB, ``(h, w, 3)``; the same pixels whatever region they are drawn with.

        Parameters
        ----------
        box : Box
            Level-0 px.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)
            RGB.
        """
        return self.draw_with_classes(box)[0]

    def draw_with_classes(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a region and its class map: 0 background, 1 nucleus, 2 mitosis.

        Parameters
        ----------
        box : Box
            Level-0 px.

        Returns
        -------
        picture : ndarray of uint8, shape (h, w, 3)
            RGB.
        classes : ndarray of uint8, shape (h, w)
            Class of each pixel.
        """
        if self.is_glass(box):
            picture = np.broadcast_to(np.array(_GLASS, np.uint8), (box.height_px, box.width_px, 3)).copy()
            return picture, np.zeros((box.height_px, box.width_px), np.uint8)
        outer = box.grown(_REACH_PX)
        haematoxylin = np.zeros((outer.height_px, outer.width_px), np.float32)
        classes = np.zeros(haematoxylin.shape, np.uint8)
        for x, y, rng in self._sites(outer):
            part, at = _window((x - outer.x_px, y - outer.y_px), haematoxylin.shape)
            if haematoxylin[part].size:
                self._nucleus(haematoxylin[part], classes[part], at, rng)
        for k, (x, y) in enumerate(self.mitoses_xy_px):
            if abs(x - outer.x_px - outer.width_px / 2) < outer.width_px / 2 + _REACH_PX and (
                abs(y - outer.y_px - outer.height_px / 2) < outer.height_px / 2 + _REACH_PX
            ):
                part, at = _window((x - outer.x_px, y - outer.y_px), haematoxylin.shape)
                self._mitosis(haematoxylin[part], classes[part], at, np.random.default_rng([self.seed, 2, k]))
        # No wider than the margin that is drawn: else a region's pixels would depend on where it ends.
        sigma_px = min(_OPTICS_PX * 0.25 / self.mpp, _REACH_PX / 3)
        picture = cv2.GaussianBlur(self._stain(haematoxylin, outer), (0, 0), sigma_px)
        inner = box.slices_within(outer)
        return picture[inner], classes[inner]

    def _sites(self, box: Box) -> Iterator[tuple[float, float, np.random.Generator]]:
        """Yield the nuclei around a box; one jittered place for each cell of a lattice, so that any box sees the same."""
        reach = _REACH_PX
        for row in range((box.y_px - reach) // _SITE_PX, (box.y_end_px + reach) // _SITE_PX + 1):
            for column in range((box.x_px - reach) // _SITE_PX, (box.x_end_px + reach) // _SITE_PX + 1):
                rng = np.random.default_rng([self.seed, 3, row & 0xFFFFFFFF, column & 0xFFFFFFFF])
                x, y = (column + rng.uniform(0.1, 0.9)) * _SITE_PX, (row + rng.uniform(0.1, 0.9)) * _SITE_PX
                if rng.random() > 0.62 or self._depth(x, y) <= 0.02:
                    continue
                if len(self.mitoses_xy_px) and np.hypot(*(self.mitoses_xy_px - [x, y]).T).min() < 40:
                    continue
                yield x, y, rng

    def _nucleus(
        self,
        stain: NDArray[np.float32],
        classes: NDArray[np.uint8],
        at: tuple[float, float],
        rng: np.random.Generator,
    ) -> None:
        unit = 0.25 / self.mpp
        axes = (rng.uniform(11, 16) * unit, rng.uniform(8, 12) * unit)
        angle, depth = rng.uniform(0, 180), rng.uniform(0.35, 0.6)
        shape = _ellipse(at, axes, angle, stain.shape)
        np.maximum(stain, depth * shape, out=stain)
        rim = shape - _ellipse(at, (axes[0] - 1.5 * unit, axes[1] - 1.5 * unit), angle, stain.shape)
        stain += 0.12 * rim
        classes[(shape > 0.5) & (classes == 0)] = 1

    def _mitosis(
        self,
        stain: NDArray[np.float32],
        classes: NDArray[np.uint8],
        at: tuple[float, float],
        rng: np.random.Generator,
    ) -> None:
        """Draw a metaphase plate or two anaphase plates in a cleared cell, with ragged edges; each is of 20 to 30 um2."""
        unit = _MITOSIS_SCALE * 0.25 / self.mpp
        angle = rng.uniform(0, math.pi)
        across = np.array([-math.sin(angle), math.cos(angle)])
        gap = rng.choice([0.0, 7.0]) * unit
        clear = _ellipse(at, (17 * unit, 16 * unit), 0, stain.shape)
        stain *= 1 - clear
        stain += 0.08 * clear
        for side in (1.0,) if gap == 0 else (-1.0, 1.0):
            centre = np.array(at) + side * gap * across
            for k in range(11):  # side by side, so that a plate has no gap
                place = -15 + 30 * (k + rng.uniform()) / 11
                along = place * unit * np.array([math.cos(angle), math.sin(angle)])
                where = centre + along + rng.normal(0, 2.2 * unit, 2)
                axes = (rng.uniform(3.5, 5.5) * unit, rng.uniform(2.5, 4.0) * unit)
                blob = _ellipse(
                    (where[0], where[1]), axes, math.degrees(angle) + rng.normal(0, 25), stain.shape
                )
                np.maximum(stain, rng.uniform(2.5, 3.0) * blob, out=stain)
                classes[blob > 0.5] = 2

    def _stain(self, haematoxylin: NDArray[np.float32], box: Box) -> NDArray[np.uint8]:
        coarse, fine = self._textures
        rows, columns = np.arange(box.y_px, box.y_end_px), np.arange(box.x_px, box.x_end_px)
        at = np.ix_(rows % _TEXTURE_PX, columns % _TEXTURE_PX)
        inside = self._depth(columns[None, :].astype(float), rows[:, None].astype(float)) > 0
        eosin = (0.35 + 0.07 * coarse[at] + 0.15 * fine[at]) * inside
        nuclear = haematoxylin * (1 + 0.22 * fine[at]) + 0.16 * inside
        density = nuclear[..., None] * _STAINS[0] + eosin[..., None] * _STAINS[1]
        picture: NDArray[np.uint8] = np.clip(np.array(_GLASS, np.float32) * np.exp(-density), 0, 255).astype(
            np.uint8
        )
        return picture

    @cached_property
    def _textures(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Two periodic noises of zero mean and unit spread, one of tens of pixels and one of a few."""
        rng = np.random.default_rng([self.seed, 4])
        out = []
        for sigma in (14.0, 1.3):
            noise = rng.normal(0, 1, (_TEXTURE_PX, _TEXTURE_PX)).astype(np.float32)
            margin = int(4 * sigma)
            smooth = cv2.GaussianBlur(np.pad(noise, margin, mode="wrap"), (0, 0), sigma)[
                margin:-margin, margin:-margin
            ]
            out.append(((smooth - smooth.mean()) / smooth.std()).astype(np.float32))
        return out[0], out[1]


def _window(
    at: tuple[float, float], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[float, float]]:
    """Return the part of an array that a cell at x, y can reach, and its place in that part; parts are many times as fast as the whole."""
    left, top = (max(0, int(v) - _REACH_PX) for v in at)
    part = (
        slice(top, max(0, min(shape[0], int(at[1]) + _REACH_PX + 1))),
        slice(left, max(0, min(shape[1], int(at[0]) + _REACH_PX + 1))),
    )
    return part, (at[0] - left, at[1] - top)


def _ellipse(
    at: tuple[float, float], axes: tuple[float, float], angle: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return an antialiased filled ellipse on zeros."""
    out = np.zeros(shape, np.uint8)
    centre = (round(at[0] * 16), round(at[1] * 16))
    size = (max(1, round(axes[0] * 16)), max(1, round(axes[1] * 16)))
    cv2.ellipse(out, centre, size, angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
    return out.astype(np.float32) / np.float32(255)


def write_slide(path: Path, drawing: SyntheticSlide) -> None:
    """Write a drawing as a pyramidal, JPEG-tiled TIFF that OpenSlide opens, tile by tile.

    Parameters
    ----------
    path : Path
        TIFF to write.
    drawing : SyntheticSlide
        What is drawn.
    """
    h, w = drawing.height_px, drawing.width_px
    small = np.full((-(-h // REDUCTION), -(-w // REDUCTION), 3), _GLASS, np.uint8)
    per_cm = 1e4 / drawing.mpp
    options = {"photometric": "ycbcr", "compression": "jpeg", "tile": (TILE_PX, TILE_PX), "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=h * w > 2**31) as tif:
        tif.write(
            _tiles(drawing, small),
            shape=(h, w, 3),
            dtype=np.uint8,
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            subsampling=(1, 1),
            software="wsi-minugan synthetic slide",
            **options,
        )
        if max(h, w) > TILE_PX * REDUCTION:
            less = per_cm / REDUCTION
            tif.write(
                _tiles_of(small),
                shape=small.shape,
                dtype=np.uint8,
                subfiletype=1,
                resolution=(less, less),
                resolutionunit="CENTIMETER",
                subsampling=(1, 1),
                **options,
            )


def _tiles(drawing: SyntheticSlide, small: NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield the encoded tiles of level 0 and fill the reduced picture."""
    glass = _encode(np.full((TILE_PX, TILE_PX, 3), _GLASS, np.uint8))
    step = TILE_PX // REDUCTION
    for y in range(0, drawing.height_px, TILE_PX):
        for x in range(0, drawing.width_px, TILE_PX):
            box = Box(y, x, TILE_PX, TILE_PX)
            if drawing.is_glass(box):
                yield glass
                continue
            tile = drawing.draw(box)
            part = small[y // REDUCTION : y // REDUCTION + step, x // REDUCTION : x // REDUCTION + step]
            reduced = cv2.resize(tile, (step, step), interpolation=cv2.INTER_AREA)
            part[:] = reduced[: part.shape[0], : part.shape[1]]
            yield _encode(tile)


def _tiles_of(picture: NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield a picture's encoded tiles; the last ones are filled up with glass."""
    for y in range(0, picture.shape[0], TILE_PX):
        for x in range(0, picture.shape[1], TILE_PX):
            tile = np.full((TILE_PX, TILE_PX, 3), _GLASS, np.uint8)
            part = picture[y : y + TILE_PX, x : x + TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            yield _encode(tile)


def _encode(tile: NDArray[np.uint8]) -> bytes:
    return bytes(
        imagecodecs.jpeg8_encode(
            tile, level=_QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling=(1, 1)
        )
    )
