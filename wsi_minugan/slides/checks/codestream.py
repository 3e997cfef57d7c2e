"""What JPEG and JPEG 2000 streams say of themselves: their colours, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_APP0, _APP14, _DHT, _SOS = 0xE0, 0xEE, 0xC4, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_COD, _J2K_SOT = 0x52, 0x90
_ZERO_RUN = bytes(32)
_LEAST_FRAME_BYTES, _COMPONENTS = 15, 3


@dataclass(frozen=True)
class Colours:
    """What a stream says of its colours.

    Attributes
    ----------
    ycc : bool or None
        Whether it holds YCbCr (True) or RGB (False); None where it says nothing.
    why : str
        What says so, for messages.
    """

    ycc: bool | None
    why: str = ""


def jpeg_colours(stream: bytes, tables: bytes | None = None) -> Colours:
    """Return what a JPEG stream of three components says of its colours, in the order in which libjpeg believes it.

    Parameters
    ----------
    stream : bytes
        The stream, or its first kilobytes.
    tables : bytes, optional
        The tables that a TIFF holds for all of its tiles; their markers count too.

    Returns
    -------
    Colours
        Whether it is YCbCr, and what says so.
    """
    segments = [*_segments(tables or b""), *_segments(stream)]
    if any(code == _APP0 and body.startswith(b"JFIF") for code, body in segments):
        return Colours(True, "a JFIF marker")
    for code, body in segments:
        if code == _APP14 and body.startswith(b"Adobe") and len(body) > 11:
            return Colours(body[11] != 0, f"an Adobe marker with transform {body[11]}")
    for code, body in segments:
        if code in _FRAMES and len(body) >= _LEAST_FRAME_BYTES and body[5] == _COMPONENTS:
            if bytes(body[6:15:3]) == b"RGB":
                return Colours(False, "components named R, G and B")
            if len(set(body[7:15:3])) > 1:
                return Colours(True, "colours of a lower resolution than brightness")
    return Colours(None)


def jpeg_is_ended(stream: bytes) -> bool:
    """Return whether a JPEG or JPEG 2000 stream has its end marker, which pixels cannot hold; whatever follows it is ignored.

    Parameters
    ----------
    stream : bytes
        The whole stream.

    Returns
    -------
    bool
        False where the end was cut off.
    """
    return stream.find(EOI, len(stream) // 2) >= 0


def jpeg_hole(stream: bytes, tables: bytes | None = None) -> bool:
    """Return whether a JPEG stream holds a run of zeros that no picture is encoded as.

    Zeros that a copy left behind can decode without any complaint of the decoder. Only where the shortest codes of the Huffman tables mean
    "no change", as tables made for one picture may have it, does flat glass become zeros.

    Parameters
    ----------
    stream : bytes
        The whole stream.
    tables : bytes, optional
        The tables that a TIFF holds for all of its tiles.

    Returns
    -------
    bool
        False where the tables allow zeros.
    """
    if _ZERO_RUN not in stream:
        return False
    first = [
        symbol
        for code, body in [*_segments(tables or b""), *_segments(stream)]
        if code == _DHT
        for symbol in _first_symbols(body)
    ]
    return not first or any(symbol != 0 for symbol in first)


def j2k_transform(stream: bytes) -> bool | None:
    """Return whether a JPEG 2000 stream transforms its colours (RCT or ICT); None where it is none, or damaged.

    Parameters
    ----------
    stream : bytes
        The stream, or its first kilobytes.

    Returns
    -------
    bool or None
        By its COD marker (ISO/IEC 15444-1).
    """
    start = stream.find(_J2K_START)
    if start < 0:
        return None
    at = start + 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != _J2K_SOT:
        if stream[at + 1] == _J2K_COD and at + 9 <= len(stream):
            return stream[at + 8] != 0
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def j2k_hole(stream: bytes) -> bool:
    """Return whether a JPEG 2000 stream holds a run of zeros that no picture is encoded as.

    Parameters
    ----------
    stream : bytes
        The whole stream.

    Returns
    -------
    bool
        False, too, where the stream is none.
    """
    return _ZERO_RUN + bytes(_empty_packets(stream)) in stream.rstrip(b"\0")


def _empty_packets(stream: bytes) -> int:
    """Return how many packets a JPEG 2000 stream may have: of flat glass each is one byte of zeros."""
    start = stream.find(_J2K_START)
    at = start + 2
    while start >= 0 and at + 10 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != _J2K_SOT:
        if stream[at + 1] == _J2K_COD:
            layers, resolutions = int.from_bytes(stream[at + 6 : at + 8], "big"), stream[at + 9] + 1
            # Precincts of a size of their own cut each resolution of a tile into as many as 256.
            return layers * resolutions * _COMPONENTS * (256 if stream[at + 4] & 1 else 1)
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return 0


def j2k_is_whole(stream: bytes) -> bool:
    """Return whether a JPEG 2000 stream has its tile parts at the places that they say, and its end marker.

    Parameters
    ----------
    stream : bytes
        The whole stream.

    Returns
    -------
    bool
        False for what is no JPEG 2000.
    """
    start = stream.find(_J2K_START)
    if start < 0:
        return False
    at = start + 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != _J2K_SOT:
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    while stream[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(stream[at + 6 : at + 10], "big")
        if length == 0:  # the last part may leave its length open
            return jpeg_is_ended(stream)
        if length < 12:
            return False
        at += length
    return stream[at : at + 2] == EOI


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (code, body) of a JPEG's marker segments up to its pixels."""
    at = 2 if stream.startswith(SOI) else len(stream)
    while at + 2 <= len(stream) and stream[at] == 0xFF:
        code = stream[at + 1]
        if code == 0xFF:
            at += 1
            continue
        if code in _WITHOUT_LENGTH:
            at += 2
            continue
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        if code == _SOS or length < 2:
            return
        yield code, stream[at + 4 : at + 2 + length]
        at += 2 + length


def _first_symbols(body: bytes) -> Iterator[int]:
    """Yield the symbol of the shortest code of each Huffman table of a DHT segment; that code is all zeros."""
    at = 0
    while at + 17 < len(body):
        yield body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])
