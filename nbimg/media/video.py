"""What the header of a video says, and whether the file is whole: no decoder is needed for either.

Stage: beside `pixels`. Comes in: the bytes of an MP4 (also QuickTime and fragmented ones) or of a WebM
(also Matroska). Goes out: its media type and its size in pixels. Must not: decode a frame, open a file.

Layouts: ISO/IEC 14496-12 (boxes; `tkhd` holds the size as 16.16 numbers and a matrix that may turn the
picture), RFC 8794 and RFC 9559 (EBML elements). From memory, checked by tests against files that players
open.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nbimg.errors import ImageInputError

__all__ = ["VideoProbe", "probe"]


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """What a video is.

    Attributes:
        mime: Media type, by its content.
        width: Pixels as shown; 0 where the header does not tell.
        height: Pixels as shown.
    """

    mime: str
    width: int = 0
    height: int = 0


_EBML = b"\x1aE\xdf\xa3"


def probe(data: bytes, *, name: str = "the video") -> VideoProbe:
    """Read the header of a video.

    Args:
        data: The whole file.
        name: What the error calls it.

    Raises:
        ImageInputError: When it is cut off or damaged, or holds no pictures.
    """
    try:
        found = _webm(data) if data.startswith(_EBML) else _mp4(data)
    except (_CutOffError, struct.error, IndexError):
        raise ImageInputError(
            f"{name} is a video that is cut off or damaged ({len(data):,} bytes)."
        ) from None
    if found is None:
        raise ImageInputError(f"{name} holds no moving pictures.")
    return found


class _CutOffError(Exception):
    """A part of the file says that it goes on beyond the end."""


# ------------------------------------------------------------ MP4: boxes in boxes


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a range: kind, where their content begins, where it ends."""
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        stop = end if size == 0 else start + size  # 0: to the end of the file
        if size and size < head:
            raise _CutOffError
        if stop > end:
            raise _CutOffError
        yield kind, start + head, stop
        start = stop


def _mp4(data: bytes) -> VideoProbe | None:
    """Walk through all boxes: a file that was cut off ends within one, or lacks the index or the frames."""
    kinds, found = set(), None
    for kind, start, end in _boxes(data, 0, len(data)):
        kinds.add(kind)
        if kind == b"moov":
            found = next(_tracks(data, start, end), None)
    if b"moov" not in kinds or not kinds & {b"mdat", b"moof"}:
        raise _CutOffError
    return found


def _tracks(data: bytes, start: int, end: int) -> Iterator[VideoProbe]:
    """The tracks that hold pictures."""
    for kind, begin, stop in _boxes(data, start, end):
        if kind != b"trak":
            continue
        inside = {name: (one, other) for name, one, other in _boxes(data, begin, stop)}
        media = {name: one for name, one, _ in _boxes(data, *inside.get(b"mdia", (0, 0)))}
        if b"hdlr" in media and data[media[b"hdlr"] + 8 : media[b"hdlr"] + 12] == b"vide":
            yield VideoProbe("video/mp4", *_shown(data, inside.get(b"tkhd", (0, 0))[1]))


def _shown(data: bytes, end: int) -> tuple[int, int]:
    """The size at the end of a `tkhd`, turned as the matrix before it says."""
    if not end:
        return 0, 0
    a, b = struct.unpack_from(">2i", data, end - 44)
    width, height = (value >> 16 for value in struct.unpack_from(">2I", data, end - 8))
    return (height, width) if a == 0 and b != 0 else (width, height)


# ------------------------------------------------------------ WebM: elements in elements

_SEGMENT, _TRACKS, _ENTRY, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_WIDTH, _HEIGHT, _CLUSTER = 0xB0, 0xBA, 0x1F43B675


def _vint(data: bytes, at: int, *, marked: bool) -> tuple[int, int]:
    """A number of 1 to 8 bytes and where it ends; `marked`: with the bit that tells its length."""
    first = data[at]
    length = 9 - first.bit_length()
    if length > 8 or at + length > len(data):
        raise _CutOffError
    value = int.from_bytes(data[at : at + length], "big")
    return (value if marked else value & ((1 << 7 * length) - 1)), at + length


def _elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The elements of a range: id, where their content begins, where it ends."""
    while start < end:
        name, at = _vint(data, start, marked=True)
        size, begin = _vint(data, at, marked=False)
        unknown = size == (1 << 7 * (begin - at)) - 1  # written live: to the end
        stop = end if unknown else begin + size
        if stop > end:
            raise _CutOffError
        yield name, begin, stop
        start = stop


def _webm(data: bytes) -> VideoProbe | None:
    """Walk through the segment: a file that was cut off ends within an element, or lacks one."""
    size, names = None, set()
    for name, start, end in _elements(data, 0, len(data)):
        for inner, begin, stop in _elements(data, start, end) if name == _SEGMENT else ():
            names.add(inner)
            if inner == _TRACKS:
                size = _size(data, begin, stop)
    if not names >= {_TRACKS, _CLUSTER}:
        raise _CutOffError
    return None if size is None else VideoProbe("video/webm", *size)


def _size(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """The size of the first track that holds pictures."""
    for name, begin, stop in _elements(data, start, end):
        for inner, one, other in _elements(data, begin, stop) if name == _ENTRY else ():
            if inner == _VIDEO:
                found = {
                    key: int.from_bytes(data[a:b], "big")
                    for key, a, b in _elements(data, one, other)
                }
                return found.get(_WIDTH, 0), found.get(_HEIGHT, 0)
    return None
