import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbimg.errors import ImageInputError, ResultMissingError
from nbimg.media.pixels import poster, probe
from nbimg.store.files import Store
from nbimg.testing.pictures import render_picture
from nbimg.testing.videos import render_video
from nbimg.types import EncodedImage

VALUES = {"index": 1, "prompt": "A cat", "model": "1001", "seed": 7}
FORMATS = ("mp4", "webm")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def film(key="a", form="mp4"):
    return EncodedImage(render_video(key, form, 64, 36), seed=7, url="https://x/y.mp4")


@pytest.mark.parametrize("form", FORMATS)
def test_a_video_is_kept_byte_for_byte_with_its_kind_type_and_size(store, form):
    image = film(form=form)
    record = store.put(image, None, VALUES, text={"parameters": "a cat"})
    assert record.path == store.folder / f"a-cat-7.{form}"
    assert record.path.read_bytes() == image.data == record.read()
    assert record.sha256 == hashlib.sha256(image.data).hexdigest()
    assert (record.kind, record.mime) == ("video", f"video/{form}")
    assert (record.width, record.height) == (64, 36)
    assert (record.seed, record.url) == (7, "https://x/y.mp4")
    stored = store.hidden / "objects" / record.sha256[:2] / f"{record.sha256}.{form}"
    assert stored.samefile(record.path)
    assert store.get(record.sha256, record.mime) == image.data
    assert store.holds(record)


@pytest.mark.parametrize(("name", "kept"), [("x.png", "x.png.mp4"), ("x.webm", "x.webm.mp4")])
def test_a_name_of_another_format_gets_the_one_that_it_is(store, name, kept):
    assert store.put(film(), name, VALUES).path.name == kept


def test_a_name_of_its_own_format_stays(store):
    assert store.put(film(), "{prompt}.MP4", VALUES).path.name == "a-cat.MP4"


def test_other_bytes_never_overwrite_and_threads_do_not_meet(store):
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda k: store.put(film(str(k)), "x.mp4", VALUES), range(12)))
    assert len({record.path for record in records}) == 12
    assert all(store.holds(record) for record in records)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_no_whole_video_leaves_no_file(store, form):
    data = film(form=form).data
    with pytest.raises(ImageInputError, match="cut off"):
        store.put(EncodedImage(data[: len(data) // 2]), None, VALUES)
    assert not store.folder.exists()


def test_a_video_of_the_store_is_named_again_without_a_second_copy(store):
    record = store.put(film(), "x.mp4", VALUES)
    again = store.again(record, "y.mp4", VALUES)
    assert (again.kind, again.path.name) == ("video", "y.mp4")
    assert again.path.samefile(record.path)
    assert store.again(record, "z.png", VALUES).path.name == "z.png.mp4"


def test_its_thumbnail_is_a_poster_that_is_made_once(store):
    record = store.put(film(), None, VALUES)
    first = store.thumb(record, 256)
    assert (probe(first).width, probe(first).height) == (256, 144)
    cached = store.hidden / "thumbs" / f"{record.sha256}-256.webp"
    assert cached.read_bytes() == first
    cached.write_bytes(b"kept")
    assert store.thumb(record, 256) == b"kept"


def test_a_cover_of_the_provider_is_its_poster(store):
    cover = render_picture("cover", "png", 32, 18)
    record = store.put(film(), None, VALUES, cover=cover)
    assert store.thumb(record, 256) == poster(64, 36, cover=cover)
    assert store.thumb(record, 256) != poster(64, 36)


def test_a_spoilt_cover_costs_nothing(store):
    record = store.put(film(), None, VALUES, cover=b"<html>")
    assert store.thumb(record, 256) == poster(64, 36)


def test_a_video_whose_file_has_gone_has_no_poster(store):
    record = store.put(film(), None, VALUES)
    record.path.unlink()
    assert store.thumb(record, 256) is None
    with pytest.raises(ResultMissingError):
        record.read()


def test_a_video_can_be_kept_as_an_input(store):
    taken = store.take(film().data, "walk.mp4")
    assert (taken.mime, taken.width, taken.height, taken.source) == (
        "video/mp4",
        64,
        36,
        "walk.mp4",
    )
