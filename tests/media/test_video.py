import contextlib
import io
import struct

import PIL.Image
import pytest

from nbimg.errors import ImageInputError
from nbimg.media import pixels, video
from nbimg.testing.pictures import render_picture
from nbimg.testing.videos import render_video

FORMATS = ("mp4", "webm")


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(64, 48), (1920, 1080), (9, 16)])
def test_the_size_of_a_video_is_read_from_its_header(form, size):
    found = video.probe(render_video("a", form, *size))
    assert (found.mime, found.width, found.height) == (f"video/{form}", *size)


@pytest.mark.parametrize("form", FORMATS)
def test_a_video_is_told_by_its_first_bytes(form):
    assert pixels.sniff(render_video("a", form, 16, 16)[:64]) == f"video/{form}"


@pytest.mark.parametrize("form", FORMATS)
def test_a_video_that_was_cut_off_anywhere_is_not_taken_for_whole(form):
    data = render_video("a", form, 16, 16)
    for end in range(16, len(data)):
        with pytest.raises(ImageInputError, match="cut off"):
            video.probe(data[:end])


@pytest.mark.parametrize("form", FORMATS)
def test_any_damage_in_the_header_is_one_clear_error_or_none(form):
    data = render_video("a", form, 16, 16)
    for place in range(4, min(len(data), 700)):
        for value in (0, 0x7F, 0xFF):
            damaged = bytearray(data)
            damaged[place] = value
            with contextlib.suppress(ImageInputError):
                video.probe(bytes(damaged))


def test_a_video_that_was_turned_is_as_wide_as_it_is_shown():
    data = render_video("a", "mp4", 64, 48)
    upright = struct.pack(">4i", 0x10000, 0, 0, 0)
    turned = struct.pack(">4i", 0, 0x10000, 0, -0x10000)
    at = data.index(upright, data.index(b"tkhd"))
    found = video.probe(data[:at] + turned + data[at + 16 :])
    assert (found.width, found.height) == (48, 64)


def test_a_box_of_64_bits_and_one_to_the_end_of_the_file_are_read():
    data = render_video("a", "mp4", 64, 48)
    at = data.index(b"mdat") - 4
    frame = data[at + 8 :]
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + len(frame)) + frame
    assert video.probe(data[:at] + large).width == 64
    assert video.probe(data[:at] + struct.pack(">I4s", 0, b"mdat") + frame).width == 64
    with pytest.raises(ImageInputError, match="cut off"):
        video.probe(data[:at] + large[:-1])


def test_a_fragmented_file_is_whole_without_one_large_box():
    data = render_video("a", "mp4", 64, 48)
    head = data[: data.index(b"mdat") - 4]
    assert video.probe(head + box(b"moof", bytes(8)) + box(b"free")).width == 64


def test_a_webm_that_was_written_live_has_no_sizes():
    data = render_video("a", "webm", 64, 48)
    at = data.index(bytes.fromhex("18538067"))
    live = data[: at + 4] + b"\x01" + b"\xff" * 7 + data[at + 12 :]
    assert video.probe(live).width == 64


def test_a_file_without_pictures_is_no_video():
    sound = render_video("a", "mp4", 64, 48).replace(b"vide", b"soun")
    with pytest.raises(ImageInputError, match="no moving pictures"):
        video.probe(sound)
    assert pixels.sniff(b"\0\0\0\x20ftypM4A \0\0\2\0") is None


def test_a_video_is_not_taken_for_a_picture():
    with pytest.raises(ImageInputError, match="is a video, not an image"):
        pixels.probe(render_video("a", "mp4", 64, 48))


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (64, 64), (4000, 10), (0, 0)])
def test_a_poster_has_the_shape_of_its_video_and_a_sign_to_play(size):
    data = pixels.poster(*size)
    assert len(data) <= pixels.THUMB_BYTES
    picture = PIL.Image.open(io.BytesIO(data)).convert("RGB")
    assert max(picture.size) == pixels.THUMB_SIDE_PX
    if min(size) > 16:
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.02)
    if min(picture.size) > 32:
        middle = picture.getpixel((picture.width // 2, picture.height // 2))
        assert min(middle) > 180, "the triangle"


def test_a_cover_stands_for_its_video_under_the_sign():
    cover = PIL.Image.new("RGB", (320, 180), (200, 30, 30))
    target = io.BytesIO()
    cover.save(target, "PNG")
    picture = PIL.Image.open(io.BytesIO(pixels.poster(640, 360, cover=target.getvalue())))
    red, green, blue = picture.convert("RGB").getpixel((3, 3))
    assert (red > 150, green < 80, blue < 80) == (True, True, True)


def test_a_cover_that_is_no_picture_is_an_error():
    with pytest.raises(ImageInputError):
        pixels.poster(640, 360, cover=render_picture("a", "png", 8, 8)[:40])
