"""A review on disk: the corrected set beside the original, what was changed, by whom and when, and the new count."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import shapely
from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from wsi_minugan import __version__
from wsi_minugan.counting.models import Count
from wsi_minugan.errors import LockedError, OutputError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.outputs import geojson
from wsi_minugan.outputs.atomic import not_written, write_text
from wsi_minugan.outputs.manifest import REVIEWS
from wsi_minugan.outputs.objects import NOT_MITOSIS, Marked, collection_text, read_objects
from wsi_minugan.pipeline.areas import windows_of
from wsi_minugan.review.compare import Change, Kind, compare, tally
from wsi_minugan.review.people import clean_name, review_folder
from wsi_minugan.review.result import COUNT, MITOSES, Result

REVIEW = "review.json"
VERDICT, REVIEWER, WHEN = "Review", "Reviewer", "Reviewed"
"""Keys of an object's metadata in a review's GeoJSON: accepted, rejected, added or moved; who; when (ISO 8601, UTC)."""

MARK_RADIUS_UM = 5.0
"""What was marked by a point is drawn as a circle of this radius: about the size of a mitosis."""
_LOCK_S = 10.0


class ReviewedObject(FrozenModel):
    """What became of one object; kept ones are not listed."""

    id: uuid.UUID
    kind: Literal["moved", "reclassified", "removed", "added"]
    x_px: float = Field(description="Centre, level-0 px; of a removed one where it was.")
    y_px: float
    distance_um: float = 0.0


class ReviewFile(FrozenModel):
    """Content of review.json."""

    schema_version: Literal[1] = 1
    slide_id: str
    fingerprint: str = Field(description="The slide's, as in manifest.json.")
    reviewer: str
    saved: str = Field(description="ISO 8601, UTC.")
    revision: int = Field(ge=1, description="Goes up with each save.")
    source: Literal["view", "review"] = Field(description="The command that saved it.")
    program: str
    original_sha256: str = Field(description="Digest of the mitoses.geojson that was reviewed.")
    tally: dict[Kind, int]
    accepted: int = Field(ge=0, description="Objects of the original that were looked at and accepted.")
    changes: list[ReviewedObject]
    before: Count
    after: Count


@dataclass(frozen=True)
class Saved:
    """A review that lies in its folder.

    Attributes
    ----------
    folder : Path
        ``OUT/SLIDE_ID/reviews/NAME``.
    file : ReviewFile
        Its review.json.
    objects : tuple of Marked
        The corrected set with what was rejected, level-0 px.
    """

    folder: Path
    file: ReviewFile
    objects: tuple[Marked, ...]


@dataclass(frozen=True)
class Stamp:
    """Who saves, and when.

    Attributes
    ----------
    reviewer : str
        Cleaned name.
    when : str
        ISO 8601, UTC.
    """

    reviewer: str
    when: str


def corrected_set(
    result: Result, corrected: Sequence[Marked], changes: Sequence[Change], stamp: Stamp
) -> tuple[Marked, ...]:
    """Return the objects that a review writes: UUIDs given back, points made circles, every id once, each decision stamped.

    Parameters
    ----------
    result : Result
        The slide.
    corrected : sequence of Marked
        Objects of the corrected file.
    changes : sequence of Change
        From `compare` of the result's mitoses with them.
    stamp : Stamp
        For decisions that are new; those that this reviewer made before keep their time.

    Returns
    -------
    tuple of Marked
        Outlines in level-0 px.
    """
    found = []
    for change in changes:
        if change.corrected is None:
            continue
        new = corrected[change.corrected]
        own = result.mitoses[change.original].id if change.original is not None else _own_id(result, new)
        label = NOT_MITOSIS if change.kind == "reclassified" else geojson.MITOSIS
        words = _stamped(new.metadata, change.kind, stamp)
        found.append(replace(new, id=own, label=label, shape=_outline(new.shape, result.mpp), metadata=words))
    return _distinct(result, found)


_VERDICTS: dict[Kind, str] = {"reclassified": "rejected", "added": "added", "moved": "moved"}


def _stamped(metadata: Mapping[str, str], kind: Kind, stamp: Stamp) -> dict[str, str]:
    """Return an object's metadata with this reviewer's decision on it, or with none."""
    others = {k: v for k, v in metadata.items() if k not in {VERDICT, REVIEWER, WHEN}}
    said = metadata.get(VERDICT)
    # Somebody else's decision in a file that was handed on is not this reviewer's.
    own = metadata.get(REVIEWER, stamp.reviewer) == stamp.reviewer
    looked_at = said == "accepted" and own and kind in {"kept", "moved"}
    verdict = "accepted" if looked_at else _VERDICTS.get(kind)
    if verdict is None:
        return others
    before = metadata.get(WHEN) if own and said == verdict else None
    return others | {VERDICT: verdict, REVIEWER: stamp.reviewer, WHEN: before or stamp.when}


def _own_id(result: Result, added: Marked) -> str:
    if added.id and added.id not in {m.id for m in result.mitoses}:
        return added.id
    x, y = added.centre_px
    return geojson.object_id(result.sealed.slide.fingerprint, f"added {x:.2f} {y:.2f}")


def _distinct(result: Result, objects: Sequence[Marked]) -> tuple[Marked, ...]:
    """Give the later ones of a shared id a new one."""
    seen: set[str] = set()
    out = []
    for found in objects:
        k, own = 0, found.id
        while own in seen:
            k += 1
            own = geojson.object_id(result.sealed.slide.fingerprint, f"copy {k} of {found.id}")
        seen.add(own)
        out.append(replace(found, id=own))
    return tuple(out)


def _outline(shape: shapely.Geometry, mpp: float) -> shapely.Geometry:
    """Return a polygon that QuPath takes: as drawn, mended where it crosses itself, a circle around a point or a line."""
    sound = shape if shapely.is_valid(shape) else shapely.make_valid(shape)
    areas = [p for p in shapely.get_parts(shapely.GeometryCollection([sound])) for p in shapely.get_parts(p)]
    areas = [p for p in areas if p.geom_type == "Polygon" and p.area > 0]
    if not areas:
        return geojson.circle(shape.centroid.x, shape.centroid.y, MARK_RADIUS_UM / mpp)
    return areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas)


def save_review(
    result: Result,
    corrected: Sequence[Marked],
    reviewer: str,
    source: Literal["view", "review"],
    revision: int | None = None,
) -> Saved:
    """Write a review beside the original, whose files stay as they are; an earlier one of the same reviewer is replaced.

    Parameters
    ----------
    result : Result
        The slide.
    corrected : sequence of Marked
        Objects of the corrected file, level-0 px.
    reviewer : str
        Who.
    source : {"view", "review"}
        The command that saves.
    revision : int, optional
        The revision that the reviewer went on from (0: none); None replaces whatever is there.

    Returns
    -------
    Saved
        What was written.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    LockedError
        If another window saved a newer revision, or is saving now.
    """
    name = clean_name(reviewer)
    folder = review_folder(result.folder, name)
    _prepare(folder)
    try:
        with FileLock(folder / ".lock", timeout=_LOCK_S):
            earlier = _earlier(folder)
            if revision is not None and earlier != revision:
                raise LockedError(
                    f"The review of {result.sealed.slide.slide_id} by {name} was saved by another window since. "
                    "Load the page again; what was decided here since then has to be decided again."
                )
            return _write(result, corrected, name, source, earlier + 1, folder)
    except Timeout as e:
        raise LockedError(f"{folder} is being saved by another window. Save again.") from e
    except OSError as e:
        raise not_written(folder, e) from e


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise not_written(folder, e) from e


def _write(
    result: Result,
    corrected: Sequence[Marked],
    name: str,
    source: Literal["view", "review"],
    revision: int,
    folder: Path,
) -> Saved:
    stamp = Stamp(name, datetime.now(UTC).isoformat(timespec="seconds"))
    changes = compare(result.mitoses, corrected, result.mpp)
    objects = corrected_set(result, corrected, changes, stamp)
    after = result.recount([o for o in objects if o.counts])
    file = ReviewFile(
        slide_id=result.sealed.slide.slide_id,
        fingerprint=result.sealed.slide.fingerprint,
        reviewer=name,
        saved=stamp.when,
        revision=revision,
        source=source,
        program=f"wsi-minugan {__version__}",
        original_sha256=result.digest,
        tally=tally(changes),
        accepted=sum(o.metadata.get(VERDICT) == "accepted" for o in objects),
        changes=list(_listed(result, objects, changes)),
        before=result.count,
        after=after,
    )
    write_text(folder / MITOSES, _collection(result, objects, after))
    write_text(folder / COUNT, after.model_dump_json(indent=2) + "\n")
    # What says that the review is whole comes last.
    write_text(folder / REVIEW, file.model_dump_json(indent=2) + "\n")
    return Saved(folder, file, objects)


def _listed(result: Result, objects: Sequence[Marked], changes: Sequence[Change]) -> Iterable[ReviewedObject]:
    standing = iter(objects)
    for change in changes:
        new = next(standing) if change.corrected is not None else None
        if change.kind == "kept":
            continue
        found = new if new is not None else result.mitoses[change.original or 0]
        x, y = found.centre_px
        yield ReviewedObject(
            id=uuid.UUID(found.id),
            kind=change.kind,
            x_px=round(x, 2),
            y_px=round(y, 2),
            distance_um=round(change.distance_um, 2),
        )


def _collection(result: Result, objects: Sequence[Marked], after: Count) -> str:
    sealed = result.sealed
    return collection_text(objects, sealed.geojson_origin_px, windows_of(after), sealed.slide.fingerprint)


def _earlier(folder: Path) -> int:
    """Return the revision that lies in a folder; 0 where there is none, or none that can be read."""
    try:
        return ReviewFile.model_validate_json((folder / REVIEW).read_bytes()).revision
    except (OSError, ValidationError):
        return 0


def read_review(result: Result, reviewer: str) -> Saved | None:
    """Return a reviewer's review of a slide, or None where there is none.

    Parameters
    ----------
    result : Result
        The slide.
    reviewer : str
        Whose.

    Returns
    -------
    Saved or None
        The review.

    Raises
    ------
    OutputError
        If it cannot be read, or is of another slide.
    InputError
        If the reviewer's name is none.
    """
    folder = review_folder(result.folder, reviewer)
    if not (folder / REVIEW).is_file():
        return None
    try:
        file = ReviewFile.model_validate_json((folder / REVIEW).read_bytes())
    except (OSError, ValidationError) as e:
        raise OutputError(
            f"{folder / REVIEW} cannot be read. Move the folder away to begin that review anew."
        ) from e
    if file.fingerprint != result.sealed.slide.fingerprint:
        raise OutputError(f"{folder} holds the review of another slide. Move it away.")
    found = read_objects(folder / MITOSES, result.sealed.geojson_origin_px)
    return Saved(folder, file, tuple(o for o in found if o.label not in geojson.WINDOWS))


def reviewers_of(slide_folder: Path) -> list[str]:
    """Return who reviewed a slide, sorted; reviews that cannot be read are passed over.

    Parameters
    ----------
    slide_folder : Path
        ``OUT/SLIDE_ID``.

    Returns
    -------
    list of str
        Names as they were given.
    """
    names = []
    for path in sorted((slide_folder / REVIEWS).glob(f"*/{REVIEW}")):
        try:
            names.append(ReviewFile.model_validate_json(path.read_bytes()).reviewer)
        except (OSError, ValidationError):
            continue
    return sorted(names, key=str.casefold)


def circle_at(result: Result, x_px: float, y_px: float) -> shapely.Geometry:
    """Return the outline of a mitosis that was marked at a place of the slide, level-0 px.

    Parameters
    ----------
    result : Result
        The slide.
    x_px, y_px : float
        The place, level-0 px.

    Returns
    -------
    shapely Polygon
        A circle of a mitosis's size, level-0 px.

    Raises
    ------
    ValueError
        If the place is no place of the slide.
    """
    slide = result.sealed.slide
    inside = math.isfinite(x_px) and math.isfinite(y_px)
    if not inside or not (0 <= x_px <= slide.width_px and 0 <= y_px <= slide.height_px):
        raise ValueError(f"{x_px}, {y_px} lies outside of the slide")
    return geojson.circle(x_px, y_px, MARK_RADIUS_UM / result.mpp)
