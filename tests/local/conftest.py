"""What tests of local models share: small pipelines, pictures, and calls of them."""

import functools
import threading

import pytest

from nbimg.backends.base import Call
from nbimg.local import batch
from nbimg.local.batch import Bench
from nbimg.local.memory import Sizes
from nbimg.media import pixels
from nbimg.types import InputImage, ModelRef

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")


@pytest.fixture(scope="session")
def tiny():
    """Return a small pipeline by its name in `tiny.BUILDERS`, built once."""
    from tests.local import tiny as builders

    return functools.cache(lambda name: builders.BUILDERS[name]())


@pytest.fixture(scope="session")
def saved(tiny, tmp_path_factory):
    """A folder with a small Stable Diffusion, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    tiny("sd").save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small_area(monkeypatch):
    """Qwen's edit pipelines bring every image to a megapixel; here to 128x128."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    from nbimg.local import families

    for module in (edit, plus):
        whole = module.calculate_dimensions
        monkeypatch.setattr(
            module,
            "calculate_dimensions",
            lambda area, ratio, whole=whole: whole(min(area, 128 * 128), ratio),
        )
    known = families.FAMILIES["QwenImageEditPipeline"]
    object.__setattr__(known, "area_px", 128 * 128)
    yield
    object.__setattr__(known, "area_px", 1024 * 1024)


@pytest.fixture
def picture(tmp_path):
    """Make an input image of one colour, or one that PIL made."""
    made = []

    def make(colour="red", size=(64, 64), image=None):
        from PIL import Image

        image = image or Image.new("RGB", size, colour)
        path = tmp_path / f"picture-{len(made)}.png"
        path.write_bytes(pixels.encode(image, "image/png"))
        name = f"{colour}-{image.size}-{len(made)}"
        made.append(InputImage(name, "image/png", *image.size, str(path), path.name))
        return made[-1]

    return make


def call(prompt="a", seed=0, **known):
    """One call with few steps; `images`, `mask`, and arguments of the pipeline."""
    parts = {name: known.pop(name) for name in ("images", "mask") if name in known}
    ref = ModelRef("local", known.pop("model", "tiny"))
    arguments = {"num_inference_steps": 2, **known}
    return Call(ref, prompt, arguments, seed=seed, **parts)


def run(pipe, calls, report=lambda position, event: None, stop=None, **bench):
    """Make all calls; return the pictures in the order of the calls."""
    known = {"sizes": Sizes(), **bench}
    made = batch.run(pipe, calls, {}, None, report, stop or threading.Event(), Bench(**known))
    found = sorted(made, key=lambda one: one.position)
    assert [one.position for one in found] == list(range(len(calls)))
    return [one.image for one in found]


def until(error, pipe, calls, after=lambda: None, stop=None, **bench):
    """Make calls until `error` ends it; return the positions that were made, and the error."""
    known = {"sizes": Sizes(), **bench}
    kept, stop = [], stop or threading.Event()
    try:
        for one in batch.run(pipe, calls, {}, None, lambda *_: None, stop, Bench(**known)):
            kept.append(one.position)
            after()
    except error as caught:
        return kept, caught
    raise AssertionError(f"no {error.__name__}")


def gap(one, other):
    """Largest difference of two pictures, in levels of 0 to 255."""
    assert one.size == other.size
    pairs = zip(one.convert("RGB").tobytes(), other.convert("RGB").tobytes(), strict=True)
    return max(abs(a - b) for a, b in pairs)


class Spy:
    """Counts the calls of a pipeline's network, and keeps what the first one was given.

    Used as `with Spy(pipe) as seen:`; `seen.rows` are the batch sizes of all calls.
    """

    def __init__(self, pipe, *, leave=False):
        self.network = getattr(pipe, "unet", None) or pipe.transformer
        self.leave = leave
        self.rows, self.first = [], None

    def __enter__(self):
        self.hook = self.network.register_forward_pre_hook(self._seen, with_kwargs=True)
        return self

    def __exit__(self, kind, *_):
        self.hook.remove()
        return kind is Left

    def _seen(self, _network, given, named):
        sample = named.get("hidden_states", given[0] if given else None)
        text = named.get("encoder_hidden_states")
        self.rows.append(len(sample))
        if self.first is None:
            self.first = sample.clone(), text.clone()
        if self.leave:
            raise Left


class Left(Exception):
    """Leaves a pipeline as soon as it is known what its network is given."""
