import errno
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
import pytest

from nbimg.errors import (
    ImageInputError,
    ResultDamagedError,
    ResultMissingError,
    StoreWriteError,
)
from nbimg.store.files import Store
from nbimg.testing.pictures import render_picture
from nbimg.types import EncodedImage, ImageRecord

VALUES = {"index": 1, "prompt": "A cat", "model": "flux-dev", "seed": 7}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def picture(key="a", form="png", side=16):
    return EncodedImage(render_picture(key, form, side, side), seed=7, url="https://x/y.png")


def opened(record):
    return PIL.Image.open(io.BytesIO(record.path.read_bytes()))


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_an_image_is_kept_byte_for_byte_under_a_name_that_says_what_it_is(store):
    image = picture()
    record = store.put(image, None, VALUES)
    assert record.path == store.folder / "a-cat-7.png"
    assert record.path.read_bytes() == image.data
    assert record.sha256 == hashlib.sha256(image.data).hexdigest()
    assert (record.width, record.height, record.mime) == (16, 16, "image/png")
    assert (record.seed, record.url) == (7, "https://x/y.png")


def test_a_name_and_its_object_are_one_file_on_disk(store):
    record = store.put(picture(), None, VALUES)
    stored = store.hidden / "objects" / record.sha256[:2] / f"{record.sha256}.png"
    assert stored.samefile(record.path)


def test_other_bytes_never_overwrite_and_the_same_bytes_use_the_same_name(store):
    first = store.put(picture("a"), "x.png", VALUES)
    second = store.put(picture("b"), "x.png", VALUES)
    again = store.put(picture("a"), "x.png", VALUES)
    also = store.put(picture("b"), "x.png", VALUES)
    assert [r.path.name for r in (first, second, again, also)] == [
        "x.png",
        "x-2.png",
        "x.png",
        "x-2.png",
    ]
    assert first.path.read_bytes() == picture("a").data


def test_a_file_or_folder_of_the_user_is_left_alone(store):
    store.folder.mkdir()
    (store.folder / "x.png").write_text("mine")
    (store.folder / "x-2.png").mkdir()
    record = store.put(picture(), "x.png", VALUES)
    assert record.path.name == "x-3.png"
    assert (store.folder / "x.png").read_text() == "mine"


def test_a_file_that_was_edited_in_place_does_not_come_back_as_the_original(store):
    image = picture()
    first = store.put(image, "x.png", VALUES)
    first.path.write_bytes(b"scribble")  # the same file on disk as the object
    second = store.put(image, "x.png", VALUES)
    assert second.path.read_bytes() == image.data
    assert first.path.read_bytes() == b"scribble"


def test_many_threads_that_want_one_name_get_one_each(store):
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda k: store.put(picture(str(k)), "x.png", VALUES), range(24)))
    assert len({record.path for record in records}) == 24
    assert all(hashlib.sha256(r.path.read_bytes()).hexdigest() == r.sha256 for r in records)


@pytest.mark.parametrize(
    ("name", "form"), [("x.jpg", "JPEG"), ("x.webp", "WEBP"), ("x.jpeg", "JPEG")]
)
def test_another_extension_converts_and_keeps_the_original(store, name, form):
    image = picture()
    record = store.put(image, name, VALUES, text={"parameters": "a cat"})
    assert opened(record).format == form
    sha256 = hashlib.sha256(image.data).hexdigest()
    assert store.get(sha256, "image/png") == image.data


def test_a_conversion_to_png_carries_how_it_was_made(store):
    record = store.put(picture(form="webp"), "x.png", VALUES, text={"parameters": "a cat"})
    assert opened(record).text["parameters"] == "a cat"


@pytest.mark.parametrize("name", ["x.gif", "x.mp4", "x.webm"])
def test_a_paid_image_is_kept_even_when_the_wanted_format_cannot_be_written(store, name):
    record = store.put(picture(), name, VALUES)
    assert record.path.name == f"{name}.png"
    assert record.path.read_bytes() == picture().data


@pytest.mark.parametrize("data", [b"", b"<html>", picture().data[:-60], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_whole_image_leaves_no_file(store, data):
    with pytest.raises(ImageInputError):
        store.put(EncodedImage(data), "x.png", VALUES)
    assert not store.folder.exists() or files(store.folder) == []


@pytest.mark.parametrize("crash_at", ["os.fsync", "pathlib.Path.replace", "os.link"])
def test_a_crash_in_between_leaves_no_half_file(store, monkeypatch, crash_at):
    def crash(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crash_at, crash)
        with pytest.raises(KeyboardInterrupt):
            store.put(picture(), "x.png", VALUES)
    assert not (store.folder / "x.png").exists()
    for name in files(store.folder):  # at most the whole object
        assert hashlib.sha256((store.folder / name).read_bytes()).hexdigest() in name


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing_behind(store, monkeypatch, place, code):
    def full(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(place, full)
    with pytest.raises(StoreWriteError, match="is full") as caught:
        store.put(picture(), "x.png", VALUES)
    assert caught.value.hint
    assert files(store.folder) == []


def test_a_folder_that_is_a_file_is_one_clear_line(store):
    store.folder.write_text("in the way")
    with pytest.raises(StoreWriteError, match="out") as caught:
        store.ready()
    assert "\n" not in caught.value.message
    assert "output_dir" in caught.value.hint


def no_links(monkeypatch, code=errno.EPERM):
    def refuse(*args, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK])
def test_a_file_system_without_links_gets_copies_under_the_same_rules(store, monkeypatch, code):
    no_links(monkeypatch, code)
    records = [store.put(picture(key), "x.png", VALUES) for key in "aba"]
    assert [r.path.name for r in records] == ["x.png", "x-2.png", "x.png"]
    assert records[1].path.read_bytes() == picture("b").data


def test_a_copy_that_is_broken_off_leaves_no_half_file(store, monkeypatch):
    no_links(monkeypatch)
    real, calls = Path.replace, []

    def second_fails(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(StoreWriteError):
        store.put(picture(), "x.png", VALUES)
    assert not (store.folder / "x.png").exists()


def test_an_image_that_was_changed_is_not_given_out(store):
    record = store.put(picture(), None, VALUES)
    record.path.write_bytes(b"other")
    with pytest.raises(ResultDamagedError):
        store.get(record.sha256, record.mime)
    with pytest.raises(ResultMissingError):
        store.get("0" * 64, "image/png")


def test_an_input_is_kept_once_by_its_content(store):
    data = picture().data
    first, second = store.take(data, "a.png"), store.take(data, "b.png")
    assert first.path == second.path
    assert Path(first.path).read_bytes() == data
    assert (first.source, first.sha256) == ("a.png", hashlib.sha256(data).hexdigest())


def test_a_thumbnail_is_a_small_webp_and_made_once(store):
    record = store.put(picture(side=600), None, VALUES)
    thumb = store.thumb(record, 256)
    assert PIL.Image.open(io.BytesIO(thumb)).format == "WEBP"
    record.path.unlink()
    assert store.thumb(record, 256) == thumb
    assert store.thumb(ImageRecord(path=None, url="https://x"), 256) is None
    assert store.thumb(ImageRecord(path=Path("gone.png"), sha256="0" * 64), 256) is None


def test_files_have_the_permissions_that_the_user_gives_new_files(store):
    record = store.put(picture(), None, VALUES)
    other = store.folder / "other"
    other.write_text("x")
    assert record.path.stat().st_mode == other.stat().st_mode


def test_what_was_edited_in_place_is_neither_held_nor_given_another_name(store):
    record = store.put(picture("a", side=16), "x.png", VALUES)
    assert store.holds(record)
    size_bytes = record.path.stat().st_size
    PIL.Image.new("RGB", (16, 16), "red").save(record.path)
    with record.path.open("ab") as file:  # not told by its size
        file.write(bytes(max(0, size_bytes - record.path.stat().st_size)))
    os.truncate(record.path, size_bytes)
    assert not store.holds(record)
    with pytest.raises(ResultDamagedError):
        store.again(record, "y.png", VALUES)
    assert not (store.folder / "y.png").exists()


def test_what_was_not_edited_is_known_without_reading_it(store, monkeypatch):
    record = store.put(picture(), "x.png", VALUES)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert store.holds(record)
    assert store.again(record, "y.png", VALUES).path.name == "y.png"


def test_what_was_touched_or_copied_is_known_by_its_bytes(store):
    record = store.put(picture(), "x.png", VALUES)
    os.utime(record.path, (1_000_000, 1_000_000))
    assert store.holds(record)


def test_where_names_are_copies_an_edited_one_does_not_cost_the_original(store, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    image = picture()
    record = store.put(image, "x.png", VALUES)
    record.path.write_bytes(b"scribble")
    assert not store.holds(record)
    again = store.again(record, "x.png", VALUES)
    assert (again.path.name, again.path.read_bytes()) == ("x-2.png", image.data)
