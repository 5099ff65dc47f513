"""The rules that judge pictures are right on true drawings and see what is wrong."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diffusers")

from recipes.demo import export, measure, scenes, words
from recipes.demo.drawing import Place, draw
from recipes.demo.judge import canonical


class Oracle:
    """Names what the scene says: the judge itself needs minutes of training."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def see(self, _picture: object, _spots: list[Place]) -> list[str]:
        return self.names


def _checked(drawn: scenes.Scene, asked: scenes.Scene, seed: int) -> dict[str, bool]:
    names = [thing.kind for thing in drawn.things for _ in range(thing.count)]
    return measure.check(draw(drawn, seed), asked, Oracle(names))  # type: ignore[arg-type]


def test_true_drawings_pass() -> None:
    rng = random.Random(5)
    rows = [_checked(scene, scene, seed) for seed in range(120) if (scene := scenes.sample(rng))]
    for name in ("background", "time", "colour", "count", "position", "all"):
        found = [row[name] for row in rows if name in row]
        assert found, name
        assert np.mean(found) >= 0.97, name


def test_wrong_drawings_fail() -> None:
    asked = scenes.Scene((scenes.Thing("circle", "red", 2),), background="white")
    wrong = {
        "background": replace(asked, background="blue"),
        "colour": replace(asked, things=(scenes.Thing("circle", "green", 2),)),
        "count": replace(asked, things=(scenes.Thing("circle", "red", 3),)),
    }
    for name, drawn in wrong.items():
        spots = len(canonical(asked))
        row = measure.check(draw(drawn, 1), asked, Oracle(["circle"] * spots))  # type: ignore[arg-type]
        assert not row[name]
        assert not row["all"]


def test_each_known_word_is_one_token_and_odd_text_is_harmless() -> None:
    words.check(words.tokenizer())


def test_the_shipped_words_are_the_words_of_the_recipe() -> None:
    path = export.WEIGHTS / "tokenizer" / "tokenizer.json"
    shipped = json.loads(path.read_text(encoding="utf-8"))["model"]
    built = json.loads(words.tokenizer().backend_tokenizer.to_str())["model"]
    assert shipped["vocab"] == built["vocab"]
    assert shipped["merges"] == built["merges"]
