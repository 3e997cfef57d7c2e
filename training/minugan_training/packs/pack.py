"""Packs: the images and labels of one experiment in one small file, for a machine that has nothing else.

A pack is a ZIP file without compression of its own: an image (JPEG) and a label map (PNG) for each region, and ``manifest.json``.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from minugan_training.data.index import Entry, points_text
from minugan_training.data.labels import Sample
from minugan_training.packs.regions import Region, regions_of
from minugan_training.sampling.pool import Place, Pool
from minugan_training.settings import Experiment
from wsi_minugan.errors import DataError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.outputs.atomic import atomic_path

MANIFEST = "manifest.json"
FORMAT = 1
LARGEST_BYTES = 28_000_000
_MEMBER_BYTES = 100
"""What ZIP itself takes for a member."""
_ROW_BYTES = 160
"""What a region's row takes in the compressed manifest, at most."""
_ZIP_BYTES = 2_000
_VOICE_OF_PLACES = 2
"""How much more room than their share of a batch the sources of mitoses and look-alikes get: of these there are few."""


class PackedRegion(FrozenModel):
    """One region of a pack."""

    entry: Entry = Field(
        description="Its files in the pack and its place's properties; coordinates are the region's."
    )
    mitoses_px: tuple[tuple[float, float], ...] = Field(
        description="x, y of the mitoses that are drawn from this region; each mitosis stands in one region only."
    )


class PackManifest(FrozenModel):
    """What a pack says of itself."""

    format: int = FORMAT
    experiment: str
    quality: int = Field(ge=1, le=100)
    regions: tuple[PackedRegion, ...]


@dataclass
class _Packed:
    """What is encoded so far."""

    room_bytes: int
    files: dict[Region, tuple[bytes, bytes]] = field(default_factory=dict)
    by_entry: dict[int, list[Region]] = field(default_factory=lambda: defaultdict(list))

    def has(self, region: Region) -> bool:
        return any(r.holds(region) for r in self.by_entry[region.entry])

    def add(self, region: Region, files: tuple[bytes, bytes]) -> bool:
        """Add a region, if there is room for it."""
        size = size_of(files)
        if size > self.room_bytes:
            return False
        self.room_bytes -= size
        self.files[region] = files
        self.by_entry[region.entry].append(region)
        return True


@dataclass(frozen=True)
class PackSummary:
    """What went into a pack of what there was.

    Attributes
    ----------
    regions, mitoses, look_alikes : tuple of (int, int)
        How many were packed, and how many the experiment draws from.
    patients : int
        Patients in the pack.
    mpixels : float
        Million pixels in the pack.
    size_bytes : int
        The file's size.
    """

    regions: tuple[int, int]
    mitoses: tuple[int, int]
    look_alikes: tuple[int, int]
    patients: int
    mpixels: float
    size_bytes: int


def write_pack(
    experiment: Experiment,
    pool: Pool,
    path: Path,
    largest_bytes: int = LARGEST_BYTES,
    quality: int = 80,
) -> PackSummary:
    """Write a pack of what an experiment trains on.

    Where not everything fits, each source gets room as its share of a batch is, those of mitoses and look-alikes twice.
    Within a source all patients take turns.

    Parameters
    ----------
    experiment : Experiment
        Settings.
    pool : Pool
        Samples, with the labels that training shall see.
    path : Path
        The file.
    largest_bytes : int
        Its greatest size.
    quality : int
        The images' JPEG quality, 1 to 100.

    Returns
    -------
    PackSummary
        What went in.

    Raises
    ------
    DataError
        If the experiment has a validation, which a pack does not serve, or nothing fits.
    """
    if experiment.validation is not None:
        raise DataError(
            f"The experiment {experiment.name} has a validation, and a pack holds nothing to validate on. Take out 'validation'."
        )
    queues = [regions_of(experiment, pool, s) for s in experiment.sources]
    packed = _chosen(experiment, pool, queues, largest_bytes - _ZIP_BYTES, quality)
    if not packed.files:
        raise DataError(f"Nothing fits into {largest_bytes} bytes. Allow more, or a lower quality.")
    manifest = _manifest(experiment, pool, packed, quality)
    _write(path, manifest, [packed.files[r] for r in sorted(packed.files)])
    return _summary(pool, queues, manifest, path)


def _chosen(
    experiment: Experiment, pool: Pool, queues: Sequence[Sequence[Region]], room_bytes: int, quality: int
) -> _Packed:
    packed = _Packed(room_bytes)
    spent = [0.0] * len(queues)
    voices = [
        s.per_batch * (_VOICE_OF_PLACES if s.at in {"mitoses", "look_alikes"} else 1)
        for s in experiment.sources
    ]
    waiting = {k: iter(q) for k, q in enumerate(queues)}
    while waiting:
        k = min(waiting, key=lambda n: (spent[n] / voices[n], n))
        region = next((r for r in waiting[k] if not packed.has(r)), None)
        files = None if region is None else _encoded(pool.sample(region.entry), region, quality)
        if region is None or files is None or not packed.add(region, files):
            del waiting[k]
            continue
        spent[k] += size_of(files)
    return packed


def size_of(files: tuple[bytes, bytes]) -> int:
    """Return what a region takes in a pack, its row in the manifest included.

    Parameters
    ----------
    files : tuple of (bytes, bytes)
        Its image and its labels.

    Returns
    -------
    int
        Bytes, at most.
    """
    return sum(len(f) + _MEMBER_BYTES for f in files) + _ROW_BYTES


def _encoded(sample: Sample, region: Region, quality: int) -> tuple[bytes, bytes]:
    part = (slice(region.y0_px, region.y1_px), slice(region.x0_px, region.x1_px))
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    _, image = cv2.imencode(".jpg", np.ascontiguousarray(sample.image[part][..., ::-1]), jpeg)
    _, labels = cv2.imencode(
        ".png", np.ascontiguousarray(sample.labels[part]), [cv2.IMWRITE_PNG_COMPRESSION, 9]
    )
    return image.tobytes(), labels.tobytes()


def _manifest(experiment: Experiment, pool: Pool, packed: _Packed, quality: int) -> PackManifest:
    regions = sorted(packed.files)
    mitoses = _shared_out(packed, pool.mitoses_on(packed.by_entry))
    alike = _shared_out(packed, [(k, x, y) for k in packed.by_entry for x, y in pool.look_alikes_on(k)])
    rows = []
    for number, region in enumerate(regions):
        rows.append(
            PackedRegion(
                entry=_entry_of(pool, region, number, alike[region]),
                mitoses_px=tuple((round(x, 2), round(y, 2)) for x, y in mitoses[region]),
            )
        )
    return PackManifest(experiment=experiment.name, quality=quality, regions=tuple(rows))


def _entry_of(pool: Pool, region: Region, number: int, look_alikes: Sequence[tuple[float, float]]) -> Entry:
    entry = pool.entries[region.entry]
    told = {
        "image": f"{number}.jpg", "x_px": 0, "y_px": 0,
        "width_px": region.x1_px - region.x0_px, "height_px": region.y1_px - region.y0_px,
        "mpp": pool.sample(region.entry).mpp, "mitoses_truth": "", "mitoses_votes": "", "nuclei_truth": "",
        "look_alikes": points_text((round(x + 0.5, 2), round(y + 0.5, 2)) for x, y in look_alikes),
        "unknown_points": "", "ignore": "",
    }  # fmt: skip
    return Entry.model_validate(entry.model_dump() | told)


def _shared_out(packed: _Packed, places: Sequence[Place]) -> dict[Region, list[tuple[float, float]]]:
    """Give each place to the region that shows most around it; what lies in none is in none."""
    found: dict[Region, list[tuple[float, float]]] = defaultdict(list)
    for entry, x, y in places:
        margins = {r: _margin_px(r, x, y) for r in packed.by_entry[entry]}
        best = max(margins, key=lambda r: (margins[r], r), default=None)
        if best is not None and margins[best] >= 0:
            found[best].append((x - best.x0_px, y - best.y0_px))
    return found


def _margin_px(region: Region, x: float, y: float) -> float:
    return min(x - region.x0_px, region.x1_px - 1 - x, y - region.y0_px, region.y1_px - 1 - y)


def _write(path: Path, manifest: PackManifest, files: Sequence[tuple[bytes, bytes]]) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as pack:
        # ZipInfo's own date, so that the same data make the same bytes.
        pack.writestr(
            zipfile.ZipInfo(MANIFEST),
            manifest.model_dump_json(exclude_defaults=True),
            zipfile.ZIP_DEFLATED,
            9,
        )
        for number, (image, labels) in enumerate(files):
            pack.writestr(zipfile.ZipInfo(f"{number}.jpg"), image)
            pack.writestr(zipfile.ZipInfo(f"{number}.png"), labels)


def _summary(
    pool: Pool, queues: Sequence[Sequence[Region]], manifest: PackManifest, path: Path
) -> PackSummary:
    wanted = {r for q in queues for r in q}
    entries = {r.entry for r in wanted}
    packed = [r.entry for r in manifest.regions]
    return PackSummary(
        (len(packed), len(wanted)),
        (sum(len(r.mitoses_px) for r in manifest.regions), len(pool.mitoses_on(entries))),
        (
            sum(len(e.look_alikes.split()) // 2 for e in packed),
            sum(len(pool.look_alikes_on(k)) for k in entries),
        ),
        len({e.patient for e in packed}),
        sum(e.width_px * e.height_px for e in packed) / 1e6,
        path.stat().st_size,
    )


def labels_name(entry: Entry) -> str:
    """Return the name of an entry's label map in a pack.

    Parameters
    ----------
    entry : Entry
        Of the pack.

    Returns
    -------
    str
        That of the image, with another ending.
    """
    return str(Path(entry.image).with_suffix(".png"))


def decoded(image: bytes, labels: bytes, entry: Entry) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an entry's image and labels.

    Parameters
    ----------
    image, labels : bytes
        The files.
    entry : Entry
        What they are of.

    Returns
    -------
    image, labels : ndarray of uint8, shape (h, w, 3)
        RGB, and labels of 0, 1 or IGNORE.

    Raises
    ------
    DataError
        If one cannot be decoded or has another size than the entry.
    """
    pixels, told = (
        _picture(data, name, (entry.height_px, entry.width_px, 3))
        for data, name in ((image, entry.image), (labels, labels_name(entry)))
    )
    return np.ascontiguousarray(pixels[..., ::-1]), told


def _picture(data: bytes, name: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        picture = None
    if picture is None or picture.shape != shape or picture.dtype != np.uint8:
        raise DataError(f"The pack's file {name} cannot be read. Make the pack again.")
    return np.asarray(picture, np.uint8)
