"""What the header and the frames of DICOM files say."""

from __future__ import annotations

import io
import mmap
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from wsi_minugan.errors import SlideUnreadableError, WrongColoursError
from wsi_minugan.slides.checks.codestream import j2k_transform, jpeg_colours
from wsi_minugan.slides.reader import StatedMpp

_SHORT_HEAD_BYTES, _HEAD_BYTES = 2**15, 2**18
_FRAME_HEAD_BYTES = 2**14
_FRAMES_LOOKED_AT = 4
_MOST_PLACES = 4096
_SERIES_INSTANCE_UID = 0x0020000E
_AFTER_MATRIX_SIZE = 0x00480008
_DEFLATED = "1.2.840.10008.1.2.1.99"
_ITEM = b"\xfe\xff\x00\xe0"
# The tag of the pixels and the first item. Between them stand the kind of value and the length, which OpenSlide does not look at.
_ENCAPSULATED = re.compile(rb"\xe0\x7f\x10\x00.{8}" + re.escape(_ITEM), re.DOTALL)
_PREAMBLE_BYTES = 128


@dataclass(frozen=True)
class DicomHead:
    """What is needed of a DICOM file's header.

    Attributes
    ----------
    series : str
        Identifier of its series.
    volume : bool
        Whether it is part of the slide's pyramid: no label, overview or thumbnail.
    photometric : str
        How its colours are stored, as the header has it.
    width_px, height_px : int
        Size of its whole picture.
    width_mm, height_mm : float
        Size of what it shows; 0 where it does not say.
    in_order : bool
        Whether all of its frames are there, row by row.
    """

    series: str
    volume: bool
    photometric: str
    width_px: int
    height_px: int
    width_mm: float
    height_mm: float
    in_order: bool = False


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do, whatever its name.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        False where it cannot be read.
    """
    try:
        with path.open("rb") as f:
            return f.read(_PREAMBLE_BYTES + 4)[_PREAMBLE_BYTES:] == b"DICM"
    except OSError:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Have pydicom say nothing of values that break a rule of DICOM: what opens the slide says what matters."""
    from pydicom.config import disable_value_validation

    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@_quiet()
def series_of(path: Path) -> bytes:
    """Return the identifier of a DICOM file's own series; empty where it is not found.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bytes
        SeriesInstanceUID.
    """
    for most in (_SHORT_HEAD_BYTES, _HEAD_BYTES):
        found = _partial(path, _SERIES_INSTANCE_UID + 1, most)
        try:
            if found is not None and "SeriesInstanceUID" in found:
                return str(found.SeriesInstanceUID).strip("\0 ").encode()
        except Exception:  # noqa: BLE001 - values are converted only now, with errors of as many kinds
            return b""
    return b""


def heads_of(path: Path) -> dict[Path, DicomHead]:
    """Return the headers of the files of a DICOM file's series, which lie beside it; those that cannot be read are left out.

    Parameters
    ----------
    path : Path
        A file of the series.

    Returns
    -------
    dict of Path to DicomHead
        Empty where the file itself cannot be read.
    """
    own = head_of(path)
    if own is None:
        return {}
    others = {
        p: head_of(p)
        for p in sorted(path.parent.iterdir())
        if p.suffix.lower() == path.suffix.lower() and p != path
    }
    return {path: own} | {p: h for p, h in others.items() if h is not None and h.series == own.series}


@_quiet()
def head_of(path: Path) -> DicomHead | None:
    """Return what is needed of a file's header; None where it cannot be read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    DicomHead or None
        Size, colours and series.
    """
    for most in (_SHORT_HEAD_BYTES, _HEAD_BYTES):
        found = _partial(path, _AFTER_MATRIX_SIZE, most)
        if found is not None and "TotalPixelMatrixColumns" in found:
            break
    if found is None:
        return None
    try:
        kinds = [str(v) for v in found.get("ImageType", [])]
        return DicomHead(
            series=str(found.get("SeriesInstanceUID", "")),
            volume=not set(kinds) & {"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"},
            photometric=str(found.get("PhotometricInterpretation", "")),
            width_px=int(found.get("TotalPixelMatrixColumns", 0) or 0),
            height_px=int(found.get("TotalPixelMatrixRows", 0) or 0),
            width_mm=float(found.get("ImagedVolumeWidth", 0) or 0),
            height_mm=float(found.get("ImagedVolumeHeight", 0) or 0),
            in_order=str(found.get("DimensionOrganizationType", "")) == "TILED_FULL",
        )
    except Exception:  # noqa: BLE001 - values are converted only now, with errors of as many kinds
        return None


def _partial(path: Path, stop: int, most: int = _HEAD_BYTES) -> Any:
    """Return the header's elements before the tag `stop`, or None; never more of the file is read than its first `most` bytes."""
    from pydicom.filereader import read_partial

    try:
        with path.open("rb") as f:
            head = f.read(most)
        # Inflating could take all memory; OpenSlide does not read such files either.
        if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM" or _DEFLATED.encode() in head[:4096]:
            return None
        return read_partial(io.BytesIO(head), stop_when=lambda tag, _vr, _length: int(tag) >= stop)
    except Exception:  # noqa: BLE001 - of damaged files pydicom raises nearly anything
        return None


def stated_mpp(heads: dict[Path, DicomHead], width_px: int) -> StatedMpp | None:
    """Return the resolution that the size in mm of the finest level makes; None where both sides do not agree on it.

    Parameters
    ----------
    heads : dict of Path to DicomHead
        The files of the series.
    width_px : int
        Width of level 0.

    Returns
    -------
    StatedMpp or None
        um/px of both axes.
    """
    finest = next((h for h in heads.values() if h.volume and h.width_px == width_px), None)
    if finest is None or finest.width_mm <= 0 or finest.height_mm <= 0 or finest.height_px <= 0:
        return None
    x, y = finest.width_mm * 1e3 / finest.width_px, finest.height_mm * 1e3 / finest.height_px
    found = StatedMpp("size in mm in the DICOM header", x, y)
    return found if found.plausible else None


def refuse_other_colours(heads: dict[Path, DicomHead]) -> None:
    """Compare what the frames of a series say of their colours with the headers.

    Parameters
    ----------
    heads : dict of Path to DicomHead
        The files of the series.

    Raises
    ------
    WrongColoursError
        If they contradict each other: what decodes them would follow the header, and give other colours than those scanned.
    """
    for path, head in heads.items():
        if head.volume:
            for frame in _frames(path):
                why = _contradiction(frame, head.photometric)
                if why:
                    raise WrongColoursError(
                        f"{path} contradicts itself on its colours: its header says {head.photometric}, its frames have {why}. "
                        "They would be decoded wrongly. Export the slide again, or have the header's "
                        "PhotometricInterpretation corrected."
                    )


def refuse_damaged_tables(heads: dict[Path, DicomHead]) -> None:
    """Refuse files whose table of frames points to where no frame is: OpenSlide would crash the process.

    Parameters
    ----------
    heads : dict of Path to DicomHead
        The files of the series.

    Raises
    ------
    SlideUnreadableError
        If one is damaged so.
    """
    for path in heads:
        try:
            with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                whole = _table_fits(data)
        except (OSError, ValueError):
            continue  # what opens it says so
        if not whole:
            raise SlideUnreadableError(
                f"{path} is damaged: its table of frames points to where no frame is. Copy or scan the slide again."
            )


def _table_fits(data: mmap.mmap) -> bool:
    at = _first_item(data)
    if at is None:
        return True
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    start = at + 8 + length
    if length % 4 or start + 8 > len(data):
        return False
    places = start + np.frombuffer(data[at + 8 : start], "<u4").astype(np.int64)
    if len(places) and places.max() + 8 > len(data):
        return False
    # Each look may be a page read over a network; of large slides a part must do.
    looked_at = places[:: max(1, len(places) // _MOST_PLACES)].tolist() or [start]
    return all(_is_item(data, place) for place in looked_at)


def _first_item(data: mmap.mmap) -> int | None:
    """Return where the table of frames of encapsulated pixels begins; None where pixels are stored without frames of their own."""
    found = _ENCAPSULATED.search(data)
    return found.end() - len(_ITEM) if found else None


def _is_item(data: mmap.mmap, place: int) -> bool:
    length = int.from_bytes(data[place + 4 : place + 8], "little")
    return data[place : place + 4] == _ITEM and place + 8 + length <= len(data)


def _contradiction(frame: bytes, photometric: str) -> str:
    """Return what in a frame is against the header, in words; empty where nothing is."""
    if frame.startswith(b"\xff\xd8"):
        said = jpeg_colours(frame)
        if said.ycc is not None and said.ycc == (photometric == "RGB"):
            return f"{'YCbCr' if said.ycc else 'RGB'} by {said.why}"
        return ""
    transform = j2k_transform(frame)
    if transform is False and photometric in {"YBR_ICT", "YBR_RCT"}:
        return "no colour transform in their JPEG 2000 code"
    if transform is True and photometric in {"YBR_FULL", "YBR_FULL_422"}:
        return "a colour transform in their JPEG 2000 code"
    return ""


def _frames(path: Path) -> Iterator[bytes]:
    """Yield the beginnings of a file's first encapsulated frames."""
    try:
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, length in islice(frame_places(data), _FRAMES_LOOKED_AT):
                yield data[start : start + min(length, _FRAME_HEAD_BYTES)]
    except (OSError, ValueError):
        return  # what opens it says so


def frame_places(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of the encapsulated fragments of a DICOM file; a slide's frames are one fragment each.

    Parameters
    ----------
    data : mmap
        The whole file.

    Yields
    ------
    tuple of int
        Bytes.
    """
    at = _first_item(data)
    if at is None:
        return
    at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")  # past the table of offsets
    while data[at : at + 4] == _ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield at + 8, length
        at += 8 + length
