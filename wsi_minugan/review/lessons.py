"""What training can learn from a review: hard negatives and new positives, as images with an index that minugan-train takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_minugan.geometry import Box, Frame
from wsi_minugan.outputs.atomic import write_bytes, write_text
from wsi_minugan.outputs.objects import Marked
from wsi_minugan.review.result import Result
from wsi_minugan.review.store import VERDICT, Saved
from wsi_minugan.slides.analysis import AnalysisView
from wsi_minugan.slides.reader import SlideReader

INDEX, CROPS = "index.csv", "crops"
CROP_PX = 384
"""Side of a crop, analysis px: a patch that is turned and moved about its mitosis fits in."""

DATASET = "review"
_IGNORE_PX = 16
_COLUMNS = (
    *("dataset", "image", "x_px", "y_px", "width_px", "height_px", "mpp", "patient", "scanner", "split"),
    *("mitoses", "mitoses_kind", "mitoses_truth", "look_alikes"),
    *("nuclei", "nuclei_kind", "nuclei_truth", "ignore"),
)


@dataclass(frozen=True)
class Lesson:
    """One crop to learn from, in analysis px.

    Attributes
    ----------
    box : Box
        Where it lies.
    mitoses_px : ndarray of float, shape (n, 2)
        x, y of the mitoses in it, in the crop's px.
    unsure_px : ndarray of float, shape (m, 2)
        x, y of the objects in it that nobody looked at.
    refused_px : ndarray of float, shape (k, 2)
        x, y of the objects in it that are no mitoses.
    """

    box: Box
    mitoses_px: NDArray[np.float64]
    unsure_px: NDArray[np.float64]
    refused_px: NDArray[np.float64]


def lessons_of(result: Result, objects: Sequence[Marked], frame: Frame) -> list[Lesson]:
    """Return a crop around each object that was rejected, removed, added or moved.

    Parameters
    ----------
    result : Result
        The slide.
    objects : sequence of Marked
        The corrected set of a review; see `store.corrected_set`.
    frame : Frame
        The slide's analysis frame.

    Returns
    -------
    list of Lesson
        Hard negatives and new positives.
    """
    gone = {m.id for m in result.mitoses} - {o.id for o in objects}
    wrong = [m for m in result.mitoses if m.id in gone]
    taught = [o for o in objects if o.metadata.get(VERDICT) in {"rejected", "added", "moved"}]
    sure = [o for o in objects if o.counts and VERDICT in o.metadata]
    unsure = [o for o in objects if o.counts and VERDICT not in o.metadata]
    refused = [*wrong, *(o for o in objects if o.metadata.get(VERDICT) == "rejected")]
    places = _centres(sure, frame), _centres(unsure, frame), _centres(refused, frame)
    lessons = [_lesson(o, frame, *places) for o in [*taught, *wrong]]
    # At the edge of a small slide two objects can have the same crop.
    return list({lesson.box: lesson for lesson in lessons}.values())


def _centres(objects: Sequence[Marked], frame: Frame) -> NDArray[np.float64]:
    return np.array([o.centre_px for o in objects], np.float64).reshape(-1, 2) / frame.scale


def _lesson(found: Marked, frame: Frame, *places: NDArray[np.float64]) -> Lesson:
    x, y = (int(v / frame.scale) for v in found.centre_px)
    # At the slide's edge the crop moves inwards, so that no white frame is learned.
    left = max(0, min(x - CROP_PX // 2, frame.width_px - CROP_PX))
    top = max(0, min(y - CROP_PX // 2, frame.height_px - CROP_PX))
    box = Box(top, left, CROP_PX, CROP_PX).clipped(frame.box)
    return Lesson(box, *(_within(points, box) for points in places))


def _within(points: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    moved = points - [box.x_px, box.y_px]
    return moved[((moved >= 0) & (moved < [box.width_px, box.height_px])).all(axis=1)]


def write_lessons(result: Result, saved: Saved, reader: SlideReader, frame: Frame) -> int:
    """Write the crops and the index of a review, and return how many crops there are.

    Parameters
    ----------
    result : Result
        The slide.
    saved : Saved
        Its review.
    reader : SlideReader
        The open slide.
    frame : Frame
        Its analysis frame.

    Returns
    -------
    int
        Files of crops.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    view = AnalysisView(reader, frame)
    rows = []
    for lesson in lessons_of(result, saved.objects, frame):
        # Named by its place: an object that moves has another crop.
        image = f"{CROPS}/{lesson.box.x_px}-{lesson.box.y_px}.png"
        if not (saved.folder / image).is_file():
            _write_png(saved.folder / image, view.read(lesson.box)[..., ::-1])
        rows.append(_row(result, lesson, image, _ignored(saved.folder, lesson), frame.mpp))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    write_text(saved.folder / INDEX, text.getvalue())
    _remove_others(
        saved.folder / CROPS, {Path(str(value)).name for row in rows for value in (row[1], row[-1])}
    )
    return len(rows)


def _row(result: Result, lesson: Lesson, image: str, ignore: str, mpp: float) -> list[object]:
    points, refused = (
        ";".join(f"{x:.1f} {y:.1f}" for x, y in p) for p in (lesson.mitoses_px, lesson.refused_px)
    )
    known = ["known", "points", points] if points else ["absent", "", ""]
    size = [0, 0, lesson.box.width_px, lesson.box.height_px]
    return [
        DATASET,
        image,
        *size,
        mpp,
        result.sealed.slide.slide_id,
        "",
        "",
        *known,
        refused,
        "unknown",
        "",
        "",
        ignore,
    ]


def _ignored(folder: Path, lesson: Lesson) -> str:
    """Write the mask of what nobody looked at, and return its path; empty where there is nothing."""
    if not len(lesson.unsure_px):
        return ""
    mask = np.zeros((lesson.box.height_px, lesson.box.width_px), np.uint8)
    for x, y in np.rint(lesson.unsure_px).astype(int):
        cv2.circle(mask, (int(x), int(y)), _IGNORE_PX, 255, -1)
    name = f"{CROPS}/{lesson.box.x_px}-{lesson.box.y_px}.ignore.png"
    _write_png(folder / name, mask)
    return name


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".png", picture)
    write_bytes(path, data.tobytes(), parents=True)


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """Remove the crops of decisions that were taken back."""
    for path in folder.glob("*.png"):
        if path.name not in wanted:
            path.unlink(missing_ok=True)
