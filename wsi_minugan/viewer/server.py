"""The viewer's server: on this machine only, for whoever has the token; read-only but for reviews."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from wsi_minugan.errors import InputError, LockedError, MinuganError
from wsi_minugan.outputs.manifest import read_manifest
from wsi_minugan.review.draft import Draft, DraftToSave, parse
from wsi_minugan.review.people import clean_name
from wsi_minugan.viewer.slideview import SlideView, Source

log = logging.getLogger(__name__)
T = TypeVar("T")

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "main.js": ("main.js", "text/javascript; charset=utf-8"),
    "viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MOST_BODY_BYTES = 32 * 2**20
_THREADS = 3


class Shelf:
    """The slides of the viewer, each opened when it is first looked at.

    Parameters
    ----------
    sources : sequence of Source
        Finished slides.
    reviewer : str
        Whose reviews are made.
    """

    def __init__(self, sources: Sequence[Source], reviewer: str) -> None:
        self.sources = tuple(sources)
        self.reviewer = clean_name(reviewer)
        self._views: dict[int, SlideView] = {}
        self._lock = threading.Lock()

    def names(self) -> list[dict[str, str]]:
        """Return each slide's id, and why it cannot be shown where that is so.

        Returns
        -------
        list of dict of str to str
            In the order of the result folders.
        """
        return [_entry(source) for source in self.sources]

    def view(self, number: int) -> SlideView:
        """Return a slide, opened.

        Parameters
        ----------
        number : int
            Place in `names`.

        Returns
        -------
        SlideView
            The same one each time.

        Raises
        ------
        InputError
            If there is no such slide.
        """
        if not 0 <= number < len(self.sources):
            raise InputError(f"There is no slide {number}.")
        with self._lock:
            if number not in self._views:
                self._views[number] = SlideView(self.sources[number], self.reviewer)
            return self._views[number]

    def close(self) -> None:
        """Release all slides."""
        for view in self._views.values():
            view.close()


def _entry(source: Source) -> dict[str, str]:
    try:
        return {"slide_id": read_manifest(source.folder).slide.slide_id, "problem": ""}
    except MinuganError as e:
        return {"slide_id": source.folder.name, "problem": str(e)}


class Viewer:
    """A server that runs until it is stopped.

    Parameters
    ----------
    shelf : Shelf
        What to show.
    port : int
        0 takes a free one.

    Raises
    ------
    InputError
        If the port is taken.
    """

    def __init__(self, shelf: Shelf, port: int = 0) -> None:
        self.shelf = shelf
        self.token = secrets.token_urlsafe(32)
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="viewer")
        try:
            self._sockets = bind_sockets(port, HOST)
        except OSError as e:
            raise InputError(
                f"Port {port} cannot be used: {e.strerror or e}. Leave --port out, and a free one is taken."
            ) from e
        self.port: int = self._sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """What to open in the browser; it holds the token, so it opens the viewer to whoever has it.

        Returns
        -------
        str
            A URL on the loopback interface.
        """
        return f"http://{HOST}:{self.port}/?token={self.token}"

    async def serve(self, started: Callable[[], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; `started` is called once the page can be opened.

        Parameters
        ----------
        started : callable
            Called without arguments.
        stop : asyncio.Event
            Ends the serving.
        """
        server = HTTPServer(_application(self), max_body_size=_MOST_BODY_BYTES)
        server.add_sockets(self._sockets)
        started()
        try:
            await stop.wait()
        finally:
            server.stop()
            await server.close_all_connections()
            self.pool.shutdown(wait=True)
            self.shelf.close()


def _application(viewer: Viewer) -> Application:
    number = r"(\d{1,6})"
    tile = r"(\d{1,2})/(\d{1,7})_(\d{1,7})"
    routes: list[Any] = [
        (r"/(|main\.js|viewer\.css|icon\.svg)", _Page),
        (r"/slides", _Slides),
        (rf"/s/{number}", _Slide),
        (rf"/s/{number}/standing", _Standing),
        (rf"/s/{number}/review", _Review),
        (rf"/s/{number}/tile/{tile}", _Tile),
        (rf"/s/{number}/crop/(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)", _Crop),
        (rf"/s/{number}/mask/([a-z_]{{1,20}})/{tile}", _Mask),
        (rf"/s/{number}/nuclei/points", _Points),
        (rf"/s/{number}/nuclei/outlines/(\d{{1,6}})_(\d{{1,6}})", _Outlines),
    ]
    settings: dict[str, Any] = {"viewer": viewer, "log_function": lambda handler: None}
    return Application(routes, default_handler_class=_Nothing, **settings)


class _Handler(RequestHandler):
    """What all answers share: who may ask, and what browsers may do with the answer."""

    request: HTTPServerRequest

    @property
    def viewer(self) -> Viewer:
        return cast(Viewer, self.settings["viewer"])

    def set_default_headers(self) -> None:
        for name, value in (
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
            ("Server", "wsi-minugan"),
        ):
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse whoever has no token, and pages of other hosts that lead their reader's browser here."""
        port = self.viewer.port
        if self.request.host not in {f"{HOST}:{port}", f"localhost:{port}"}:
            raise HTTPError(403)
        if self.request.method not in {"GET", "HEAD"}:
            same = self.request.headers.get("Origin") == f"http://{self.request.host}"
            kind = self.request.headers.get("Content-Type", "")
            if not same or kind.split(";")[0].strip() != "application/json":
                raise HTTPError(403)
        given = self.get_query_argument("token", "")
        if given and self.request.path == "/" and self._is_token(given):
            # The token leaves the address, so that it is not in the browser's history of this page.
            self.set_cookie(self._cookie, given, httponly=True, samesite="Strict")
            self.redirect("/")
        elif not self._is_token(self.get_cookie(self._cookie, "") or ""):
            raise HTTPError(403)

    @property
    def _cookie(self) -> str:
        # Cookies do not know ports, and two viewers may be open at once.
        return f"wsi-minugan-{self.viewer.port}"

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.viewer.token.encode())

    async def work(self, do: Callable[[SlideView], T], number: str) -> T:
        """Return what is made of a slide in another thread."""

        def inside() -> T:
            return do(self.viewer.shelf.view(int(number)))

        return await asyncio.get_running_loop().run_in_executor(self.viewer.pool, inside)

    def answer(self, content: object) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(content, allow_nan=False))

    def picture(self, data: bytes, kind: str) -> None:
        self.set_header("Content-Type", kind)
        # Pictures of a finished slide never change while this viewer is open; the next one has another port or cookie.
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(data)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        text = _WORDS.get(status_code, "The viewer's program made a mistake. Start it again.")
        if isinstance(error, MinuganError):
            self.set_status(409 if isinstance(error, LockedError) else 400)
            text = str(error)
        self.answer({"error": text})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if not isinstance(value, (MinuganError, HTTPError)):
            log.error("The viewer failed at %s", self.request.path, exc_info=(typ, value, tb))


_WORDS = {
    403: "This viewer opens with the address that wsi-minugan view printed; start it again if that is lost.",
    404: "There is nothing here.",
    405: "There is nothing here.",
}


class _Nothing(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(404)


class _Page(_Handler):
    def get(self, name: str) -> None:
        file, kind = _PAGE[name]
        self.set_header("Content-Type", kind)
        self.finish((STATIC / file).read_bytes())


class _Slides(_Handler):
    def get(self) -> None:
        self.answer(self.viewer.shelf.names())


class _Slide(_Handler):
    async def get(self, number: str) -> None:
        self.answer(await self.work(lambda v: v.describe(), number))


class _Standing(_Handler):
    async def post(self, number: str) -> None:
        draft = parse(Draft, self.request.body)
        self.answer(await self.work(lambda v: v.standing(draft), number))


class _Review(_Handler):
    async def put(self, number: str) -> None:
        draft = cast(DraftToSave, parse(DraftToSave, self.request.body))
        self.answer(await self.work(lambda v: v.save(draft), number))


class _Tile(_Handler):
    async def get(self, number: str, level: str, column: str, row: str) -> None:
        data = await self.work(lambda v: v.tile(int(level), int(column), int(row)), number)
        self.picture(data, "image/jpeg")


class _Crop(_Handler):
    async def get(self, number: str, x: str, y: str) -> None:
        self.picture(await self.work(lambda v: v.crop(float(x), float(y)), number), "image/jpeg")


class _Mask(_Handler):
    async def get(self, number: str, name: str, level: str, column: str, row: str) -> None:
        data = await self.work(lambda v: v.mask(name, int(level), int(column), int(row)), number)
        self.picture(data, "image/png")


class _Points(_Handler):
    async def get(self, number: str) -> None:
        data = await self.work(lambda v: v.nuclei.points() if v.nuclei else b"", number)
        self.picture(data, "application/octet-stream")


class _Outlines(_Handler):
    async def get(self, number: str, column: str, row: str) -> None:
        data = await self.work(
            lambda v: v.nuclei.outlines(int(column), int(row)) if v.nuclei else b"", number
        )
        self.picture(data, "application/octet-stream")
