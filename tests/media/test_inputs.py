import base64
import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from nbimg.errors import ImageInputError, UnknownNameError
from nbimg.media import inputs
from nbimg.store.files import Store
from nbimg.testing.pictures import render_picture
from nbimg.types import ImageRecord, Request, Result

PNG = render_picture("x", "png", 12, 8)


def decoded(data):
    return PIL.Image.open(io.BytesIO(data))


def written(**options):
    target = io.BytesIO()
    decoded(PNG).save(target, options.pop("form", "JPEG"), **options)
    return target.getvalue()


def values():
    path = Path("a.png").absolute()
    path.write_bytes(PNG)
    record = ImageRecord(path)
    yield from (
        str(path),
        path,
        PNG,
        bytearray(PNG),
        io.BytesIO(PNG),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        record,
        Result(0, Request("x"), "m", images=(record,)),
        Store(Path("out").absolute()).take(PNG, "a.png"),
    )


def test_whatever_holds_a_file_gives_its_very_bytes():
    for value in values():
        assert inputs.read(value)[0] == PNG, value


def test_an_open_file_is_read_also_when_it_was_just_written():
    stream = io.BytesIO()
    decoded(PNG).save(stream, "PNG")
    assert decoded(inputs.read(stream)[0]).size == (12, 8)
    with Path("a.png").open("wb") as file:
        file.write(PNG)
    with Path("a.png").open("rb") as file:
        assert inputs.read(file) == (PNG, "a.png")


def test_pictures_and_arrays_become_png_with_the_same_pixels():
    array = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)
    for value in (array, PIL.Image.fromarray(array), array / 255.0):
        got = np.asarray(decoded(inputs.read(value)[0]))
        assert got.shape == (5, 7, 3)
        assert np.abs(got.astype(int) - array).max() <= 1


def test_a_photo_is_turned_upright_and_its_place_is_not_sent():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn right
    exif[0x010F] = "SecretCamera"
    data, _ = inputs.read(written(exif=exif))
    with decoded(data) as image:
        assert image.size == (8, 12)
        assert not image.getexif()
    assert b"SecretCamera" not in data


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_place_in_xmp_is_not_sent_either(form):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:GPSLatitude>52,31N</exif:GPSLatitude></x:xmpmeta>'
    options = {"xmp": xmp}
    if form == "PNG":
        text = PIL.PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": text}
    data = written(form=form, **options)
    assert b"GPSLatitude" in data
    assert b"GPSLatitude" not in inputs.read(data)[0]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_with_nothing_to_take_out_is_not_touched(form):
    data = written(form=form)
    assert inputs.read(data)[0] == data


@pytest.mark.parametrize(
    "value",
    [b"", b"<html>", PNG[:50], 3, None, object(), io.StringIO("x"), "data:image/png;base64,%%%",
     Result(0, Request("x"), "m")],
)  # fmt: skip
def test_what_is_no_image_is_one_clear_line(value):
    with pytest.raises(ImageInputError) as caught:
        inputs.read(value)
    assert "\n" not in caught.value.message


def test_a_missing_file_names_the_nearest():
    Path("house.png").write_bytes(PNG)
    with pytest.raises(UnknownNameError, match=r"house\.png"):
        inputs.read("hose.png")
    with pytest.raises(UnknownNameError, match="~nobody"):
        inputs.read("~nobody/x.png")


def test_words_become_images_in_order():
    for name in ("b.png", "a.png", "note.txt"):
        Path(name).write_bytes(PNG)
    Path("folder").mkdir()
    Path("folder/c.jpg").write_bytes(PNG)
    names = {"shot": PNG, "many": [PNG, "a.png"], "a.png": "not this"}
    words = ["*.png", "folder", "https://x/y.png", "shot", "{many}"]
    assert inputs.expand_paths(words, names) == [
        "a.png", "b.png", "folder/c.jpg", "https://x/y.png", PNG, PNG, "a.png",
    ]  # fmt: skip
    with pytest.raises(UnknownNameError, match="shot"):
        inputs.expand_paths(["shoot"], names)


def test_a_folder_or_variable_without_images_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for word, names in (("empty", {}), ("none", {"none": []})):
        with pytest.raises(ImageInputError, match="holds no images"):
            inputs.expand_paths([word], names)


def test_a_path_in_a_folder_is_answered_with_the_nearest_path(tmp_path):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "p0.png").write_bytes(b"x")
    with pytest.raises(UnknownNameError) as caught:
        inputs.expand_paths(["pics/po.png"], {"open": open, "_private": 1})
    assert caught.value.closest == (str(Path("pics") / "p0.png"),)
