"""Small real videos for the local servers: same key, same bytes.

Stage: tests. In: a text that stands for a request. Out: an MP4 whose frame is a JPEG, or a WebM whose frame
is a VP8 key frame: one frame each, whole files that players and browsers can open (WebM) or at least read
(MP4). No encoder is needed: Pillow makes the frames. Layouts: ISO/IEC 14496-12 and RFC 9559, from memory.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from nbimg.testing.pictures import render_picture

__all__ = ["render_video"]

_IDENTITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


@lru_cache(maxsize=256)
def render_video(key: str, file_format: str, width_px: int, height_px: int) -> bytes:
    """Make the video that `key` stands for, of one second.

    Args:
        key: Same key and format, same bytes.
        file_format: `mp4` or `webm`.
        width_px: Pixels.
        height_px: Pixels.
    """
    if file_format == "webm":
        webp = render_picture(key, "webp", width_px, height_px)
        size = struct.unpack("<I", webp[16:20])[0]  # RIFF, its length, WEBP, "VP8 ", its length
        assert webp[12:16] == b"VP8 "
        return _webm(webp[20 : 20 + size], width_px, height_px)
    return _mp4(render_picture(key, "jpg", width_px, height_px), width_px, height_px)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _mp4(frame: bytes, width_px: int, height_px: int) -> bytes:
    head = _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2mp41")
    # the offset of the frame is known once the size of what stands before it is
    first = len(head) + len(_moov(0, len(frame), width_px, height_px)) + 8
    return head + _moov(first, len(frame), width_px, height_px) + _box(b"mdat", frame)


def _moov(offset: int, size: int, width_px: int, height_px: int) -> bytes:
    second = struct.pack(">5I", 0, 0, 0, 1000, 1000)  # flags, made, changed, ticks a second, ticks
    mvhd = second + struct.pack(">iH10x", 0x10000, 0x100) + _IDENTITY + bytes(24)
    mvhd += struct.pack(">I", 2)
    tkhd = struct.pack(">6I8x4H", 3, 0, 0, 1, 0, 1000, 0, 0, 0, 0) + _IDENTITY
    tkhd += struct.pack(">2I", width_px << 16, height_px << 16)
    entry = struct.pack(">6xH16x2H", 1, width_px, height_px)
    entry += struct.pack(">2I4xH32xHh", 0x480000, 0x480000, 1, 24, -1)
    tables = (
        _box(b"stsd", struct.pack(">2I", 0, 1), _box(b"jpeg", entry)),
        _box(b"stts", struct.pack(">4I", 0, 1, 1, 1000)),
        _box(b"stsc", struct.pack(">5I", 0, 1, 1, 1, 1)),
        _box(b"stsz", struct.pack(">4I", 0, 0, 1, size)),
        _box(b"stco", struct.pack(">3I", 0, 1, offset)),
    )
    here = _box(b"dinf", _box(b"dref", struct.pack(">2I", 0, 1), _box(b"url ", b"\0\0\0\1")))
    media = _box(
        b"mdia",
        _box(b"mdhd", second, struct.pack(">2H", 0x55C4, 0)),
        _box(b"hdlr", struct.pack(">2I", 0, 0), b"vide", bytes(12), b"video\0"),
        _box(b"minf", _box(b"vmhd", b"\0\0\0\1", bytes(8)), here, _box(b"stbl", *tables)),
    )
    return _box(b"moov", _box(b"mvhd", mvhd), _box(b"trak", _box(b"tkhd", tkhd), media))


def _element(name: str, body: bytes) -> bytes:
    return bytes.fromhex(name) + struct.pack(">Q", len(body) | 1 << 56) + body


def _number(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(4, "big"))


def _webm(frame: bytes, width_px: int, height_px: int) -> bytes:
    head = _element(
        "1A45DFA3",
        _number("4286", 1)
        + _number("42F7", 1)
        + _number("42F2", 4)
        + _number("42F3", 8)
        + _element("4282", b"webm")
        + _number("4287", 2)
        + _number("4285", 2),
    )
    picture = _element("E0", _number("B0", width_px) + _number("BA", height_px))
    track = _number("D7", 1) + _number("73C5", 1) + _number("83", 1) + _element("86", b"V_VP8")
    info = _number("2AD7B1", 1_000_000) + _element("4D80", b"nbimg") + _element("5741", b"nbimg")
    block = _element("A3", b"\x81\0\0\x80" + frame)
    segment = (
        _element("1549A966", info)
        + _element("1654AE6B", _element("AE", track + picture))
        + _element("1F43B675", _number("E7", 0) + block)
    )
    return head + _element("18538067", segment)
