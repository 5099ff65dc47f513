"""Tab, as the front end asks for it."""

from __future__ import annotations

import pytest

from nbimg.planning import catalog
from nbimg.text.options import find_flags


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%%imggen --see", ["--seed"]),
        ("%%imggen -n 2 --st", ["--steps", "--strength", "--strict"]),
        ("%%imgedit cat.png --comb", ["--combine"]),
        ("%%imggen --display ", ["grid", "live", "none"]),
        ("%%imggen --display=l", ["--display=live"]),
        ("%%imggen -m qwen-image-", ["qwen-image-edit-plus"]),
        ("%%imggen -m flux-dev,imagen", ["flux-dev,imagen-4-ultra"]),
        ("cats = %imggen --see", ["--seed"]),
        ("%%imggen\na cat\n--- --see", ["--seed"]),
    ],
)
def test_tab_offers_what_fits_and_nothing_else(notebook, typed, offered):
    assert notebook.completions(typed) == offered


def test_tab_after_the_model_flag_offers_every_model(notebook):
    assert set(notebook.completions("%%imggen -m ")) == set(catalog.entries())


def test_tab_on_an_empty_line_offers_every_option(notebook):
    long = {flag for flag in find_flags("imggen") if flag.startswith("--")}
    assert set(notebook.completions("%%imggen ")) == long
    assert "--combine" not in long


def test_tab_does_not_offer_options_of_the_cell_on_a_separator(notebook):
    assert "--dry-run" not in notebook.completions("%%imggen\na\n--- --")


def test_tab_leaves_the_text_of_the_cell_and_other_cells_alone(notebook):
    assert "--seed" not in notebook.completions("%%imggen\na cat --se")
    assert "print" in notebook.completions("prin")
    assert "%%imggen" in notebook.completions("%%img")
