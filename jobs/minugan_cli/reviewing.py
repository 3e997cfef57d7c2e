"""Commands about reviews: review takes a corrected GeoJSON, view opens the viewer."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wsi_minugan.errors import InputError, MinuganError
from wsi_minugan.words import pluralize

if TYPE_CHECKING:
    from wsi_minugan.review.compare import Kind
    from wsi_minugan.review.result import Result
    from wsi_minugan.review.store import Saved
    from wsi_minugan.slides.inputs import SlideInput
    from wsi_minugan.viewer.slideview import Source

_WORDS: dict[Kind, str] = {
    "kept": "kept",
    "moved": "moved",
    "reclassified": "given another class",
    "removed": "removed",
    "added": "added",
}


def login_name() -> str:
    """Return the name that the system knows the user by.

    Returns
    -------
    str
        "reviewer" where the system knows none.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "reviewer"


def review(folder: Path, corrected: Path, reviewer: str | None, slide: Path | None) -> None:
    """Compare a corrected GeoJSON with a slide's result, write the review beside it, and tell what changed.

    Parameters
    ----------
    folder : Path
        The slide's result folder.
    corrected : Path
        The GeoJSON as the reviewer left it.
    reviewer : str, optional
        Who reviewed; by default the login name.
    slide : Path, optional
        Where the slide lies now, if it was moved since the run.

    Raises
    ------
    InputError
        If the folder is that of a whole batch.
    """
    from wsi_minugan.outputs.objects import read_objects
    from wsi_minugan.review.result import open_result
    from wsi_minugan.review.store import save_review

    if (folder / "slides.csv").is_file():
        raise InputError(f"{folder} holds a whole batch. Name the folder of one slide in it: {folder}/SLIDE.")
    result = open_result(folder)
    objects = read_objects(corrected, result.sealed.geojson_origin_px)
    saved = save_review(result, objects, reviewer or login_name(), "review")
    _tell(saved)
    _teach(result, saved, slide)
    click.echo(f"Written: {saved.folder}")


def _tell(saved: Saved) -> None:
    file = saved.file
    click.echo(", ".join(f"{file.tally[kind]} {words}" for kind, words in _WORDS.items()) + ".")
    for name, before, after in (
        ("mitoses", file.before.mitoses, file.after.mitoses),
        ("in the hot spot", file.before.hotspot.mitoses, file.after.hotspot.mitoses),
        ("Nottingham score", file.before.scores.nottingham, file.after.scores.nottingham),
        ("TUPAC16 score", file.before.scores.tupac16, file.after.scores.tupac16),
    ):
        old, new = ("not defined" if v is None else v for v in (before, after))
        click.echo(f"{name:18}{old}" + (f" -> {new}" if new != old else ""))
    for warning in file.after.warnings:
        click.echo(warning, err=True)


def _teach(result: Result, saved: Saved, slide: Path | None) -> None:
    """Write what training can learn; without the slide's pixels the review is whole, but has no images."""
    from wsi_minugan.review.lessons import INDEX, write_lessons
    from wsi_minugan.review.pixels import frame_of, open_pixels

    try:
        reader = open_pixels(result.sealed, slide or slide_path(result.folder))
    except MinuganError as e:
        if slide is not None:
            raise
        click.echo(f"No {INDEX} for training: {e}", err=True)
        return
    try:
        number = write_lessons(result, saved, reader, frame_of(result.sealed))
    finally:
        reader.close()
    click.echo(f"{pluralize(number, 'image')} for training: {saved.folder / INDEX}")


def slide_path(folder: Path) -> Path:
    """Return where the slide of a result lay when it was run.

    Parameters
    ----------
    folder : Path
        The slide's result folder, in the output folder of its run.

    Returns
    -------
    Path
        The slide's file or folder, as the ledger has it.

    Raises
    ------
    InputError
        If the output folder does not say it.
    """
    return _path_among(_slides_in(folder.resolve().parent), folder)


def _slides_in(out: Path) -> dict[str, SlideInput]:
    """Return the slides that an output folder's ledger knows, by their ids."""
    from minugan_jobs.state.ledger import LEDGER
    from minugan_jobs.state.output_folder import slides_of

    return {s.slide_id: s for s in slides_of(out)} if (out / LEDGER).is_file() else {}


def _path_among(slides: dict[str, SlideInput], folder: Path) -> Path:
    found = slides.get(folder.resolve().name)
    if found is None:
        raise InputError(f"{folder} does not say where its slide lies. Name it with --slide.")
    if found.url:
        raise InputError(
            f"The slide of {folder} lies at {found.url}. Copy it here, and name it with --slide."
        )
    return found.path


def sources_of(place: Path, slide: Path | None) -> list[Source]:
    """Return the finished slides at OUT or OUT/SLIDE_ID.

    Parameters
    ----------
    place : Path
        Output folder of a run, or the result folder of one slide.
    slide : Path, optional
        Where the slide lies now; only for one slide.

    Returns
    -------
    list of Source
        One for each slide. Where the slide's file is not known, its `problem` says why.

    Raises
    ------
    InputError
        If there are none.
    """
    from wsi_minugan.outputs.manifest import MANIFEST
    from wsi_minugan.viewer.slideview import Source

    single = (place / MANIFEST).is_file()
    folders = [place] if single else sorted(p.parent for p in place.glob(f"*/{MANIFEST}"))
    if not folders:
        raise InputError(
            f"{place} holds no finished slide. Name the output folder of a run, or a slide's in it."
        )
    if slide is not None and len(folders) > 1:
        raise InputError(f"{place} holds {len(folders)} slides. With --slide name the folder of one in it.")
    slides = _slides_in(place.resolve().parent if single else place) if slide is None else {}
    found = []
    for folder in folders:
        try:
            found.append(Source(folder, slide or _path_among(slides, folder)))
        except MinuganError as e:
            found.append(Source(folder, None, str(e)))
    return found


def view(place: Path, reviewer: str | None, slide: Path | None, port: int, browser: bool) -> None:
    """Serve the viewer until Ctrl-C.

    Parameters
    ----------
    place : Path
        Output folder of a run, or the result folder of one slide.
    reviewer : str, optional
        Who reviews; by default the login name.
    slide : Path, optional
        Where the slide lies now, if it was moved since the run.
    port : int
        Port on the loopback interface; 0 takes a free one.
    browser : bool
        Whether to open the browser, too.
    """
    import asyncio
    import signal
    import webbrowser

    from wsi_minugan.viewer.server import Shelf, Viewer

    viewer = Viewer(Shelf(sources_of(place, slide), reviewer or login_name()), port)

    def started() -> None:
        click.echo(f"Reviewer: {viewer.shelf.reviewer}. Stop with Ctrl-C.", err=True)
        click.echo(viewer.address)
        if browser:
            webbrowser.open(viewer.address)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await viewer.serve(started, stop)

    asyncio.run(serve())


def export(place: Path, reviewer: str | None, slide: Path | None, page: Path) -> None:
    """Write one offline page of a slide; with a reviewer's name, of that review.

    Parameters
    ----------
    place : Path
        Result folder of one slide, or the output folder of a run with one.
    reviewer : str, optional
        Whose review to show; by default the run's own result.
    slide : Path, optional
        Where the slide lies now, if it was moved since the run.
    page : Path
        HTML file to write.

    Raises
    ------
    InputError
        If there is more than one slide, if its pixels are not found, or if the reviewer has no
        review.
    """
    from wsi_minugan.review.pixels import open_pixels
    from wsi_minugan.review.result import open_result
    from wsi_minugan.review.store import read_review
    from wsi_minugan.viewer.export import export_page

    sources = sources_of(place, slide)
    if len(sources) > 1:
        raise InputError(f"{place} holds {len(sources)} slides. Name the folder of one in it: {place}/SLIDE.")
    source = sources[0]
    if source.path is None:
        raise InputError(source.problem)
    result = open_result(source.folder)
    saved = read_review(result, reviewer) if reviewer else None
    if reviewer and saved is None:
        raise InputError(
            f"{source.folder} holds no review by {reviewer}. Leave --reviewer out for the run's own."
        )
    reader = open_pixels(result.sealed, source.path)
    try:
        export_page(page, result, reader, saved)
    finally:
        reader.close()
    click.echo(f"Written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
