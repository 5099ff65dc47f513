"""The demo world: drawn the same each time, said and read back, split once and for all."""

import random
from dataclasses import replace

import numpy as np
import pytest

from recipes.demo import captions, edits, scenes
from recipes.demo.drawing import SIZE_PX, draw

SCENES = [scenes.sample(random.Random(seed)) for seed in range(200)]


@pytest.mark.parametrize("scene", SCENES[:12], ids=scenes.Scene.key)
def test_a_scene_and_a_seed_always_give_the_same_picture(scene: scenes.Scene) -> None:
    first, second = draw(scene, 5), draw(scene, 5)
    assert first.size == (SIZE_PX, SIZE_PX)
    assert first.mode == "RGB"
    assert first.tobytes() == second.tobytes()


def test_another_seed_gives_another_picture() -> None:
    assert draw(SCENES[0], 1).tobytes() != draw(SCENES[0], 2).tobytes()


def test_what_is_said_reads_back_as_the_same_scene() -> None:
    rng = random.Random(1)
    wrong = [
        (text, scene.key())
        for scene in SCENES
        for _ in range(3)
        if captions.read(text := captions.say(scene, rng)) != scene
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("red house, night", scenes.Scene((scenes.Thing("house", "red"),), time="night")),
        ("a CAT", scenes.Scene((scenes.Thing("cat", "orange"),), time="day")),
        (
            "2 blue stars on black",
            scenes.Scene((scenes.Thing("star", "blue", 2),), background="black"),
        ),
        (
            "a circle below a square",
            scenes.Scene(
                (scenes.Thing("circle", "red"), scenes.Thing("square", "blue")),
                "below",
                background="white",
            ),
        ),
    ],
)
def test_plain_words_mean_what_they_say(text: str, scene: scenes.Scene) -> None:
    assert captions.read(text) == scene


def test_words_outside_the_world_mean_nothing() -> None:
    assert captions.read("the stock market") is None


def test_about_eight_per_cent_are_held_out_and_training_never_sees_them() -> None:
    rng = random.Random(2)
    share = sum(scenes.sample(rng).held_out() for _ in range(2000)) / 2000
    assert 0.05 < share < 0.11
    assert not any(scenes.sample_training(rng).held_out() for _ in range(500))


def test_the_split_knows_the_meaning_and_not_the_seed() -> None:
    scene = next(scene for scene in SCENES if scene.held_out())
    assert replace(scene).held_out()


@pytest.mark.parametrize("kind", edits.EDITS)
def test_an_edit_changes_something_and_has_words(kind: str) -> None:
    rng = random.Random(3)
    chosen = [edit for scene in SCENES if (edit := edits.choose(scene, rng, kind))]
    assert chosen
    for edit in chosen[:8]:
        assert edits.say(edit, rng)
        before = np.asarray(draw(edit.source, 9), int)
        after = np.asarray(draw(edit.target, 9, edit.without), int)
        assert np.abs(before - after).max() > 20


def test_an_edit_leaves_what_it_does_not_name() -> None:
    scene = scenes.Scene((scenes.Thing("circle", "red"),), background="white")
    edit = edits.choose(scene, random.Random(0), "recolour")
    assert edit is not None
    before, after = draw(edit.source, 4), draw(edit.target, 4)
    assert before.getpixel((3, 3)) == after.getpixel((3, 3))
    assert before.getpixel((96, 110)) != after.getpixel((96, 110))
