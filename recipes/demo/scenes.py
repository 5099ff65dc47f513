"""What a picture of the demo world says: things, colours, counts, relations, backgrounds.

First stage of the recipe. A `Scene` is the meaning of a picture, free of wording and of chance; the
same scene with another seed is another picture of the same meaning. Nothing here draws or writes.
The world is small on purpose: a model that fits in a package learns a small world right.
"""

import hashlib
import random
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "star", "heart")
FIGURES = ("house", "tree", "boat", "flower", "cat")
KINDS = SHAPES + FIGURES
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
TIMES = ("day", "sunset", "night")
RELATIONS = ("left", "right", "above", "below")
USUAL_COLOUR = {
    "circle": "red",
    "square": "blue",
    "triangle": "green",
    "star": "yellow",
    "heart": "red",
    "house": "red",
    "tree": "green",
    "boat": "red",
    "flower": "pink",
    "cat": "orange",
}
HELD_OUT_SHARE = 0.08


@dataclass(frozen=True, slots=True)
class Thing:
    """One kind of thing in one colour, `count` times (1-4)."""

    kind: str
    colour: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in the picture and on what.

    Attributes:
        things: None (an empty landscape), one, or two; two stand in `relation`.
        relation: Where the first thing is, seen from the second; empty unless there are two.
        time: One of `TIMES` for a landscape, empty for a plain background.
        background: A colour for a plain background, empty for a landscape.
    """

    things: tuple[Thing, ...]
    relation: str = ""
    time: str = ""
    background: str = ""

    def key(self) -> str:
        """Return the scene as text, equal exactly for equal scenes."""
        things = "+".join(f"{t.count} {t.colour} {t.kind}" for t in self.things)
        return f"{things}|{self.relation}|{self.time or self.background}"

    def held_out(self) -> bool:
        """Tell whether the scene is kept for tests: decided by its meaning, never its wording."""
        if not self.things:
            return False
        digest = hashlib.sha256(self.key().encode()).digest()
        return digest[0] / 256 < HELD_OUT_SHARE


def with_usual_background(things: tuple[Thing, ...], relation: str = "") -> Scene:
    """Return the scene a caption without background means: figures by day, shapes on white."""
    if any(thing.kind in FIGURES for thing in things) or not things:
        return Scene(things, relation, time="day")
    plain = "yellow" if any(thing.colour == "white" for thing in things) else "white"
    return Scene(things, relation, background=plain)


def _thing(rng: random.Random, avoid: str = "", kinds: tuple[str, ...] = KINDS) -> Thing:
    kind = rng.choice(kinds)
    if USUAL_COLOUR[kind] != avoid and rng.random() < 0.1:
        return Thing(kind, USUAL_COLOUR[kind])
    return Thing(kind, rng.choice([colour for colour in COLOURS if colour != avoid]))


def _background(rng: random.Random) -> str:
    return "white" if rng.random() < 0.25 else rng.choice(COLOURS)


def sample(rng: random.Random) -> Scene:
    """Draw a scene at random: singles on plain and in landscapes most, counts and pairs less."""
    form = rng.random()
    if form < 0.30:
        background = _background(rng)
        return Scene((_thing(rng, background),), background=background)
    if form < 0.60:
        kinds: tuple[str, ...] = FIGURES if rng.random() < 0.7 else SHAPES
        return Scene((_thing(rng, kinds=kinds),), time=rng.choice(TIMES))
    if form < 0.62:
        return Scene((), time=rng.choice(TIMES))
    if form < 0.76:
        background = _background(rng)
        thing = replace(_thing(rng, background), count=rng.choice((2, 2, 3, 3, 4)))
        return Scene((thing,), background=background)
    plain = form < 0.92
    background = _background(rng) if plain else ""
    kinds = KINDS if plain else tuple(kind for kind in KINDS if kind != "boat")
    first, second = _thing(rng, background, kinds), _thing(rng, background, kinds)
    while second.kind == first.kind:
        second = _thing(rng, background, kinds)
    relation = rng.choice(RELATIONS) if plain else rng.choice(RELATIONS[:2])
    return Scene((first, second), relation, "" if plain else rng.choice(TIMES), background)


def sample_training(rng: random.Random) -> Scene:
    """Draw a scene that is not held out."""
    while (scene := sample(rng)).held_out():
        pass
    return scene
