"""Decisions that are still being made: what the viewer sends, and the objects that come of it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field, ValidationError

from wsi_minugan.errors import InputError
from wsi_minugan.frozen import FrozenModel
from wsi_minugan.outputs import geojson
from wsi_minugan.outputs.objects import NOT_MITOSIS, Marked
from wsi_minugan.review.result import Result
from wsi_minugan.review.standing import Verdict
from wsi_minugan.review.store import VERDICT, Saved, circle_at

MOST_OBJECTS = 100_000
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class AddedMark(FrozenModel):
    """A mitosis that the reviewer marked, level-0 px.

    Attributes
    ----------
    id : UUID
        Made by the page.
    x, y : float
        Centre, level-0 px.
    """

    id: uuid.UUID
    x: _Finite
    y: _Finite


class Draft(FrozenModel):
    """All decisions of a reviewer on a slide.

    Attributes
    ----------
    verdicts : dict of UUID to {"accepted", "rejected"}
        By object; undecided ones are not in it.
    added : list of AddedMark
        Mitoses that the model did not find.
    """

    verdicts: dict[uuid.UUID, Verdict] = Field(default_factory=dict, max_length=MOST_OBJECTS)
    added: list[AddedMark] = Field(default_factory=list, max_length=MOST_OBJECTS)

    @property
    def by_id(self) -> dict[str, Verdict]:
        """The verdicts, by UUID as text.

        Returns
        -------
        dict of str to {"accepted", "rejected"}
            Undecided objects are not in it.
        """
        return {str(k): v for k, v in self.verdicts.items()}


class DraftToSave(Draft):
    """What is saved: decisions, and the revision that they go on from.

    Attributes
    ----------
    revision : int
        The revision that the page had loaded; 0 where there was none.
    """

    revision: int = Field(ge=0)


def parse(kind: type[Draft], text: bytes) -> Draft:
    """Return what the viewer sent.

    Parameters
    ----------
    kind : type
        `Draft`, or a class made from it.
    text : bytes
        JSON, untrusted.

    Returns
    -------
    instance of `kind`
        The draft, checked.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as e:
        problem = e.errors()[0]
        raise InputError(f"The decisions cannot be read: {problem['loc']}: {problem['msg']}.") from e


def draft_of(result: Result, saved: Saved | None) -> Draft:
    """Return the decisions of a saved review; an object that is gone from it was rejected.

    Parameters
    ----------
    result : Result
        The slide.
    saved : Saved or None
        The review on the disk.

    Returns
    -------
    Draft
        Empty where nothing was saved.
    """
    if saved is None:
        return Draft()
    there = {o.id: o for o in saved.objects}
    verdicts: dict[uuid.UUID, Verdict] = {}
    for mitosis in result.mitoses:
        found = there.get(mitosis.id)
        if found is None or not found.counts:
            verdicts[uuid.UUID(mitosis.id)] = "rejected"
        elif found.metadata.get(VERDICT) == "accepted":
            verdicts[uuid.UUID(mitosis.id)] = "accepted"
    own = {m.id for m in result.mitoses}
    added = [
        AddedMark(id=uuid.UUID(o.id), x=o.centre_px[0], y=o.centre_px[1])
        for o in saved.objects
        if o.id not in own and o.counts
    ]
    return Draft(verdicts=verdicts, added=added)


def with_moved(result: Result, saved: Saved | None) -> Result:
    """Return a result whose mitoses lie where a saved review moved them.

    Parameters
    ----------
    result : Result
        The slide.
    saved : Saved or None
        The review on the disk.

    Returns
    -------
    Result
        The same one where nothing was saved.
    """
    if saved is None:
        return result
    moved = {o.id: o.shape for o in saved.objects}
    mitoses = tuple(replace(m, shape=moved.get(m.id, m.shape)) for m in result.mitoses)
    return replace(result, mitoses=mitoses)


def added_objects(result: Result, saved: Saved | None, draft: Draft) -> list[Marked]:
    """Return what the reviewer marked; what was saved before keeps its outline.

    Parameters
    ----------
    result : Result
        The slide.
    saved : Saved or None
        The review on the disk.
    draft : Draft
        What the reviewer did.

    Returns
    -------
    list of Marked
        Outlines in level-0 px.

    Raises
    ------
    InputError
        If a mark lies outside of the slide, or has the UUID of another object.
    """
    known = {o.id: o for o in saved.objects} if saved is not None else {}
    taken = {m.id for m in result.mitoses}
    found = []
    for mark in draft.added:
        own = str(mark.id)
        if own in taken:
            raise InputError(f"Two objects have the UUID {own}. Load the page again.")
        taken.add(own)
        before = known.get(own)
        if before is not None and math.dist(before.centre_px, (mark.x, mark.y)) < 1:
            found.append(before)
            continue
        try:
            shape = circle_at(result, mark.x, mark.y)
        except ValueError as e:
            raise InputError(f"A mark at {e}.") from e
        found.append(Marked(own, geojson.MITOSIS, shape, {VERDICT: "added"}))
    return found


def objects_of(result: Result, saved: Saved | None, draft: Draft, added: Sequence[Marked]) -> list[Marked]:
    """Return the objects of a review: the run's with their verdicts, and those added.

    Parameters
    ----------
    result : Result
        The slide.
    saved : Saved, optional
        What the same reviewer saved before, whose stamps stay.
    draft : Draft
        All decisions.
    added : sequence of Marked
        See `added_objects`.

    Returns
    -------
    list of Marked
        Outlines in level-0 px.
    """
    known = {o.id: o for o in saved.objects} if saved is not None else {}
    verdicts = draft.by_id
    out = []
    for mitosis in with_moved(result, saved).mitoses:
        before = known.get(mitosis.id)
        metadata = dict(before.metadata if before is not None else mitosis.metadata)
        verdict = verdicts.get(mitosis.id)
        if metadata.get(VERDICT) != verdict:
            # Another decision than the saved one is stamped anew.
            metadata = {VERDICT: verdict} if verdict else {}
        label = NOT_MITOSIS if verdict == "rejected" else geojson.MITOSIS
        out.append(replace(mitosis, label=label, metadata=metadata))
    return [*out, *added]
