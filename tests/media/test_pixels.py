"""Bytes in, pixels out: what is read, what is refused and in which words, how small a thumbnail is."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nbimg.errors import ImageInputError
from nbimg.media import pixels


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photo(width: int = 1024, height: int = 1024, noise: float = 12.0) -> Image.Image:
    """A noisy photograph, as hard to compress as one from a camera at night."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 37 + c) * np.cos(y / 23 - c) for c in range(3)], axis=2)
    texture = rng.normal(0, noise, (height, width, 3)) + rng.normal(0, noise, (height, width, 1))
    return Image.fromarray(np.clip(128 + waves * 70 + texture, 0, 255).astype("uint8"))


def test_importing_pixels_does_not_import_pillow() -> None:
    code = "import sys, nbimg.media.pixels; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_probe_says_type_and_size_of_every_format(form: str) -> None:
    data = saved(Image.new("RGB", (30, 20), "red"), form)
    mime = f"image/{form.lower()}"
    assert pixels.probe(data) == pixels.Probe(mime, 30, 20, animated=False)
    assert pixels.sniff(data) == mime
    assert pixels.decode(data, name="x").size == (30, 20)


def test_a_probe_sees_that_a_gif_moves() -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels.probe(data).animated


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "an HTML page"),
        (b'\n <html lang="en">', "an HTML page"),
        (b'{"detail": "not found"}', "JSON text"),
        (b"<?xml version='1.0'?>\n<svg width='9'/>", "an SVG drawing"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "a HEIC photo"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "a video"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"hello there", "is text"),
        (b"\x01\x02\x03\x04\x05\0\0\0", "not an image that nbimg reads"),
    ],
)
def test_what_is_no_image_is_named_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ImageInputError, match=words) as caught:
        pixels.probe(data, name="cat.png")
    assert str(caught.value).startswith("cat.png ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_an_image_that_is_cut_off_is_an_error_and_not_half_a_picture(form: str) -> None:
    data = saved(photo(200, 200), form)
    with pytest.raises(ImageInputError, match="cut off or damaged"):
        pixels.decode(data[: len(data) * 2 // 3], name="cat")


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    data = bytearray(saved(Image.new("1", (64, 64))))
    data[16:24] = (20_000).to_bytes(4, "big") * 2  # IHDR says 400 million pixels
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(ImageInputError, match="too large"):
        pixels.probe(bytes(data))


def test_the_limit_holds_where_a_program_has_switched_off_pillows_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 99)
    with pytest.raises(ImageInputError, match="too large \\(10x10, "):
        pixels.probe(saved(Image.new("L", (10, 10))))


@given(st.binary(max_size=300), st.sampled_from(["", "PNG", "JPEG", "WEBP", "GIF", "TIFF"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_decoded_or_refused_with_our_error(tail: bytes, form: str) -> None:
    start = saved(Image.new("RGB", (8, 8)), form)[:60] if form else b""
    try:
        said = f"x is {pixels.decode(start + tail, name='x').width} wide"
    except ImageInputError as error:
        said = str(error)
    assert said.startswith("x ")


def test_upright_turns_the_picture_and_forgets_where_it_was_taken() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif.get_ifd(0x8825)[1] = "N"
    taken = pixels.decode(
        saved(Image.new("RGB", (40, 20)), "JPEG", exif=exif, comment="at home"), name="x"
    )
    assert 0x8825 in taken.getexif()
    plain = pixels.upright(taken)
    assert plain.size == (20, 40)
    assert not plain.getexif()
    assert b"at home" not in pixels.encode(plain, "image/jpeg")
    written = Image.open(io.BytesIO(pixels.encode(plain, "image/jpeg")))
    assert not written.getexif()


def test_png_text_of_any_script_comes_back() -> None:
    text = {
        "parameters": "ein rotes Haus\nSteps: 28",
        "nbimg": "夜の赤い家 🏠",
        "XML:com.adobe.xmp": "<x/>",
    }
    data = pixels.encode(Image.new("RGB", (9, 9)), "image/png", text=text)
    image = pixels.decode(data, name="x")
    assert {key: str(image.info[key]) for key in text} == text
    assert b"iTXtXML:com.adobe.xmp" in data
    assert b"tEXtparameters" in data


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/webp"])
def test_every_mode_can_be_written_in_every_format(mode: str, mime: str) -> None:
    data = pixels.encode(Image.new(mode, (20, 10)), mime)
    found = pixels.probe(data)
    assert (found.mime, found.width, found.height) == (mime, 20, 10)


def test_transparency_becomes_white_in_a_jpeg_and_stays_in_a_thumbnail() -> None:
    clear = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    jpeg = pixels.decode(pixels.encode(clear, "image/jpeg"), name="x").convert("RGB")
    assert jpeg.getpixel((5, 5)) == (255, 255, 255)
    small = pixels.decode(pixels.thumbnail(saved(clear)), name="x")
    assert small.mode == "RGBA"


def test_what_cannot_be_written_is_an_error() -> None:
    image = Image.new("RGB", (9, 9))
    with pytest.raises(ImageInputError, match="does not write image/tiff"):
        pixels.encode(image, "image/tiff")
    with pytest.raises(ImageInputError, match="no text chunks"):
        pixels.encode(image, "image/jpeg", text={"a": "b"})
    with pytest.raises(ImageInputError, match="cannot be written as WEBP"):
        pixels.encode(Image.new("L", (20_000, 1)), "image/webp")


@pytest.mark.parametrize("noise", [0.0, 12.0, 60.0])
def test_a_thumbnail_fits_its_limit_and_is_at_least_192_pixels(noise: float) -> None:
    data = saved(photo(noise=noise), "JPEG", quality=95)
    small = pixels.thumbnail(data)
    found = pixels.probe(small)
    assert found.mime == "image/webp"
    assert len(small) <= pixels.THUMB_BYTES
    assert 192 <= max(found.width, found.height) <= 256


def test_a_thumbnail_keeps_the_shape_and_never_grows() -> None:
    wide = pixels.probe(pixels.thumbnail(saved(photo(800, 200))))
    assert (wide.width, wide.height) == (256, 64)
    tiny = pixels.probe(pixels.thumbnail(saved(photo(100, 60))))
    assert (tiny.width, tiny.height) == (100, 60)


def test_a_thumbnail_shows_sixteen_bits_by_their_upper_half() -> None:
    deep = Image.fromarray(np.full((20, 20), 32_896, dtype="uint16"))
    shade = pixels.decode(pixels.thumbnail(saved(deep)), name="x").convert("L").tobytes()
    assert all(abs(value - 128) <= 3 for value in shade)


def test_a_contact_sheet_fits_its_limit() -> None:
    thumbs = [pixels.thumbnail(saved(photo(300, 200)))] * 7
    sheet = pixels.contact_sheet(thumbs, 4, max_bytes=9_000)
    found = pixels.probe(sheet)
    assert found.mime == "image/jpeg"
    assert len(sheet) <= 9_000
    assert found.width > found.height
    with pytest.raises(ImageInputError, match="at least one"):
        pixels.contact_sheet([], 4)


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.zeros((4, 6), "uint8"), "L"),
        (np.zeros((4, 6, 1), "uint8"), "L"),
        (np.zeros((4, 6, 3), "uint8"), "RGB"),
        (np.zeros((4, 6, 4), "float32"), "RGBA"),
        (np.zeros((4, 6), bool), "L"),
        (np.zeros((8, 6, 3), "uint8")[::2], "RGB"),
    ],
)
def test_an_array_becomes_an_image_of_its_shape(array: Any, mode: str) -> None:
    image = pixels.to_pil(array)
    assert (image.mode, image.size) == (mode, (6, 4))


def test_floats_from_0_to_1_span_the_whole_range() -> None:
    assert list(pixels.to_pil(np.array([[0.0, 0.5, 1.0]])).tobytes()) == [0, 128, 255]


def test_a_pil_image_stays_what_it_is() -> None:
    image = Image.new("RGB", (2, 2))
    assert pixels.to_pil(image) is image


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((3, 40, 60)), r"\(3, 40, 60\).*channels come first"),
        (np.zeros((2, 4, 6, 3)), "one by one"),
        (np.zeros((0, 4, 3)), r"\(0, 4, 3\)"),
        (np.zeros((4, 6), "int32"), "type int32"),
        (np.full((4, 6), 255.0), "from 255 to 255"),
        (np.full((4, 6), np.nan), "from nan to nan"),
        ("a string", "a str is not an image"),
    ],
)
def test_an_array_that_does_not_fit_is_told_its_shape(value: Any, words: str) -> None:
    with pytest.raises(ImageInputError, match=words):
        pixels.to_pil(value)


def test_extensions_and_media_types_are_each_others_inverse() -> None:
    assert all(pixels.MIMES[ext] == mime for mime, ext in pixels.EXTENSIONS.items())
    assert pixels.MIMES[".jpeg"] == "image/jpeg"
