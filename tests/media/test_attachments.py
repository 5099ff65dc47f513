import io
from pathlib import Path
from types import MappingProxyType

import numpy as np
import PIL.Image
import pytest

from nbimg.errors import InputError
from nbimg.media.attachments import attach
from nbimg.store.files import Store
from nbimg.testing.pictures import render_picture
from nbimg.testing.videos import render_video
from nbimg.types import EncodedImage, InputImage, Request, Result

PNG = render_picture("a", "png", 8, 6)
MP4 = render_video("a", "mp4", 64, 36)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def record(store):
    return store.put(EncodedImage(PNG), None, {"prompt": "x"})


def opened(data):
    Path("open.png").write_bytes(data)
    return Path("open.png").open("rb")


GIVEN = {
    "bytes": lambda store: PNG,
    "bytearray": lambda store: bytearray(PNG),
    "path": lambda store: Path("cat.png"),
    "open file": lambda store: opened(PNG),
    "file in memory": lambda store: io.BytesIO(PNG),
    "picture": lambda store: PIL.Image.open(io.BytesIO(PNG)),
    "array": lambda store: np.asarray(PIL.Image.open(io.BytesIO(PNG))),
    "record": record,
    "result": lambda store: Result(0, Request("x"), "m", images=(record(store),)),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_file_of_any_kind_is_kept_by_its_content(store, kind):
    Path("cat.png").write_bytes(PNG)
    value = GIVEN[kind](store)
    taken = attach({"face": value, "steps": 4}, store.take)
    if hasattr(value, "close"):
        value.close()
    assert isinstance(taken["face"], InputImage)
    assert (taken["face"].width, taken["face"].height) == (8, 6)
    assert store.get(taken["face"].sha256, taken["face"].mime)
    assert taken["steps"] == 4


def test_bytes_and_paths_stay_the_same_bytes(store):
    Path("cat.png").write_bytes(PNG)
    taken = attach({"a": PNG, "b": Path("cat.png")}, store.take)
    assert taken["a"].sha256 == taken["b"].sha256
    assert taken["b"].source == "cat.png"


def test_files_are_found_at_any_depth(store):
    params = MappingProxyType({"list": [1, PNG], "dict": {"a": {"b": PNG}}, "text": "cat.png"})
    taken = attach(params, store.take)
    assert taken["list"][0] == 1
    assert isinstance(taken["list"][1], InputImage)
    assert isinstance(taken["dict"]["a"]["b"], InputImage)
    assert taken["text"] == "cat.png"


@pytest.mark.parametrize(
    "value",
    [
        1,
        2.5,
        True,
        None,
        "cat.png",
        "./cat.png",
        [1, "a"],
        {"a": [None]},
        np.float32(1),
        np.int64(3),
        np.arange(3),
        Path("weights.safetensors"),
        object,
    ],
    ids=repr,
)
def test_what_is_no_file_is_left_as_it_is(store, value):
    Path("cat.png").write_bytes(PNG)
    params = {"x": value}
    assert attach(params, store.take) is params


@pytest.mark.parametrize("kind", ["bytes", "path", "open file", "record"])
def test_a_video_is_kept_as_it_is(store, kind):
    Path("walk.mp4").write_bytes(MP4)
    video = {
        "bytes": lambda: MP4,
        "path": lambda: Path("walk.mp4"),
        "open file": lambda: io.BytesIO(MP4),
        "record": lambda: store.put(EncodedImage(MP4), None, {"prompt": "x"}),
    }[kind]()
    taken = attach({"video": video}, store.take)["video"]
    assert (taken.mime, taken.width, taken.height) == ("video/mp4", 64, 36)
    assert store.get(taken.sha256, taken.mime) == MP4


NO_FILES = {"empty": b"", "text": b"text", "gone": Path("gone.png"), "pdf": io.BytesIO(b"%PDF-1")}


@pytest.mark.parametrize("value", NO_FILES.values(), ids=NO_FILES)
def test_a_file_that_is_none_is_one_clear_error(store, value):
    with pytest.raises(InputError):
        attach({"face": value}, store.take)


def test_a_request_with_a_kept_file_can_be_written_down(store):
    request = Request("x", params=attach({"face": PNG}, store.take))
    again = Request.from_dict(request.to_dict())
    assert again.params["face"]["sha256"] == request.params["face"].sha256
    assert request.key == again.key
