import io
import json
import struct
import zlib

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.backends.base import Call
from nbimg.store.provenance import describe, embed
from nbimg.testing.pictures import render_picture
from nbimg.types import InputImage, ModelRef, Request, Size

REF = ModelRef("replicate", "black-forest-labs/flux-dev", "flux-dev")
PNG = render_picture("x", "png", 32, 24)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@given(st.text(max_size=200))
def test_pillow_reads_back_any_text_and_the_pixels_are_unchanged(text):
    made = embed(PNG, {"parameters": text, "nbimg": "{}"})
    with PIL.Image.open(io.BytesIO(made)) as image, PIL.Image.open(io.BytesIO(PNG)) as old:
        image.load()
        clean = text.encode("utf-8", "replace").replace(b"\0", b"").decode()
        assert image.text == {"parameters": clean, "nbimg": "{}"}
        assert image.tobytes() == old.tobytes()


def test_a_signed_file_is_untouched():
    signed = PNG[:33] + chunk(b"eXIf", b"\0" * 80_000) + chunk(b"caBX", b"signature") + PNG[33:]
    assert embed(signed, {"parameters": "x"}) == signed


@pytest.mark.parametrize("form", ["jpg", "webp"])
def test_other_formats_come_back_as_they_are(form):
    data = render_picture("x", form, 8, 8)
    assert embed(data, {"parameters": "x"}) == data


def test_the_request_can_be_made_again_from_an_image():
    request = Request("a cat", n=4, seed=1, negative="dogs", size="64x32", steps=9, output="x.png")
    call = Call(REF, "a cat", {"seed": 3, "num_inference_steps": 9}, seed=3)
    text = describe(request, REF, call, 3)
    again = Request.from_dict(json.loads(text["nbimg"])["request"])
    assert (again.prompt, again.seed, again.n, again.model) == ("a cat", 3, 1, REF.full)
    assert again.size == Size(64, 32)
    assert again.output is None


def test_the_parameters_are_in_the_form_that_other_tools_read():
    request = Request("a cat", negative="dogs", steps=9, guidance=3.5, size="64x32")
    lines = describe(request, REF, Call(REF, "a cat"), 3)["parameters"].splitlines()
    assert lines[0] == "a cat"
    assert lines[1] == "Negative prompt: dogs"
    assert lines[2] == f"Steps: 9, CFG scale: 3.5, Seed: 3, Size: 64x32, Model: {REF.full}"


def test_inputs_are_named_by_content_and_never_by_path():
    image = InputImage("ab" * 32, "image/png", 1, 1, "/home/somebody/secret.png", "secret.png")
    request = Request("x", image=(image,))
    text = "".join(describe(request, REF, Call(REF, "x", images=(image,)), None).values())
    assert "secret" not in text
    assert "ab" * 32 in text
