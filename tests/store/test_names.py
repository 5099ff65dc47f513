import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbimg.errors import InputError, UnknownNameError
from nbimg.store.names import file_name, slug

RESERVED = re.compile(
    r"(con|prn|aux|nul|com[1-9]|lpt[1-9]|conin\$|conout\$)\s*(\.|$)", re.IGNORECASE
)
TEXT = st.text(max_size=400)


def legal(name):
    return (
        0 < len(name.encode()) <= 255
        and not re.search(r'[<>:"/\\|?*\x00-\x1f\x7f]', name)
        and not name.endswith((" ", "."))
        and not RESERVED.match(name)
    )


@given(TEXT, st.none() | st.integers(0, 2**32 - 1), st.sampled_from([".png", ".webp", ".jpeg"]))
def test_any_prompt_gives_a_name_that_every_system_takes(prompt, seed, extension):
    path = file_name(None, {"prompt": prompt, "seed": seed}, extension)
    assert path.name == str(path)
    assert legal(path.name)
    assert path.suffix == extension
    assert seed is None or path.stem.endswith(f"-{seed}")


@given(TEXT, TEXT, st.none() | st.integers(1, 1000))
def test_any_template_gives_a_name_that_every_system_takes_or_is_refused(template, prompt, variant):
    values = {"prompt": prompt, "index": 3, "model": "a/b:c", "seed": None}
    try:
        path = file_name(template, values, ".png", variant)
    except InputError:
        return
    if path.is_absolute():
        assert "{" not in template
        return
    assert all(legal(part) and part != ".." for part in path.parts)
    assert variant is None or path.stem.endswith(f"_{variant}")


@given(TEXT)
def test_what_stands_in_a_field_never_makes_a_folder(text):
    path = file_name("out/{prompt}.png", {"prompt": text}, ".png")
    assert path.parent == Path("out")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A red house, at night!", "a-red-house-at-night"),
        ("夜の赤い家", "夜の赤い家"),
        ("Дом у реки", "дом-у-реки"),
        ("../../etc/passwd", "etc-passwd"),
        ("🏠🏠", "image"),
        ("", "image"),
    ],
)
def test_a_slug_keeps_the_words_of_any_script(text, wanted):
    assert slug(text) == wanted


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("cat.png", "cat.png"),
        ("cat", "cat.webp"),
        ("v1.5", "v1.5.webp"),
        ("{index}-{seed}.jpg", "2-7.jpg"),
        ("{model}/{prompt}.png", "flux-dev/a-cat.png"),
        ("sub/dir/x.PNG", "sub/dir/x.PNG"),
        ("aux.png", "aux-.png"),
        ("a:b/c?.png", "a-b/c-.png"),
        ("{{x}}.png", "{x}.png"),
    ],
)
def test_a_template_is_filled(template, wanted):
    values = {"index": 2, "seed": 7, "model": "flux-dev", "prompt": "A cat"}
    assert str(file_name(template, values, ".webp")) == wanted


@pytest.mark.parametrize(
    "name", ["../x.png", "a/../../x.png", "{prompt}/../../x", "..\\x.png", "/{index}.png", "", "."]
)
def test_a_name_that_leaves_the_folder_is_refused(name):
    with pytest.raises(InputError):
        file_name(name, {"prompt": "x", "index": 1}, ".png")


def test_an_absolute_path_that_was_typed_is_honoured(tmp_path):
    assert file_name(f"{tmp_path}/x.png", {}, ".png") == tmp_path / "x.png"


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(UnknownNameError, match="seed"):
        file_name("{sed}.png", {}, ".png")


def test_a_broken_template_is_one_clear_line():
    with pytest.raises(InputError, match="output name"):
        file_name("{index", {"index": 1}, ".png")


def test_the_number_of_a_variant_survives_a_long_name():
    names = {file_name("x" * 400 + ".png", {}, ".png", number).name for number in (1, 2, 3)}
    assert len(names) == 3
