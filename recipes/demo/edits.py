"""Edits: one scene, one instruction, and the scene after it.

Source and target are drawn with the same seed, so that they differ in what the instruction names
and in nothing else.
"""

import random
from dataclasses import dataclass, replace

from recipes.demo.captions import plural
from recipes.demo.scenes import COLOURS, KINDS, TIMES, Scene

EDITS = ("recolour", "background", "time", "remove", "swap")
_FORMS = {
    "recolour": (
        "make the {0} {1}",
        "make the {0} {1}",
        "turn the {0} {1}",
        "paint the {0} {1}",
        "change the {0} to {1}",
        "colour the {0} {1}",
        "make {0} {1}",
    ),
    "background": (
        "make the background {1}",
        "make the background {1}",
        "{1} background",
        "change the background to {1}",
        "turn the background {1}",
    ),
    "time": ("make it {1}", "make it {1}", "change it to {1}", "turn it into {1}", "{1}"),
    "remove": (
        "remove the {0}",
        "remove the {0}",
        "delete the {0}",
        "take away the {0}",
        "erase the {0}",
        "remove {0}",
    ),
    "swap": (
        "turn the {0} into a {1}",
        "replace the {0} with a {1}",
        "change the {0} to a {1}",
        "make the {0} a {1}",
    ),
}
_SWAP_MANY = ("turn the {0} into {1}", "replace the {0} with {1}", "change the {0} to {1}")


@dataclass(frozen=True, slots=True)
class Edit:
    """An instruction and what it does.

    Attributes:
        kind: One of `EDITS`.
        source: The scene before.
        target: The scene after; for a removal the same scene, drawn without one thing.
        without: Index of the thing that is gone, -1 for none.
        what: What is changed, as a word.
        into: What it becomes, as a word; empty for a removal.
    """

    kind: str
    source: Scene
    target: Scene
    without: int
    what: str
    into: str

    def held_out(self) -> bool:
        """Tell whether the edit is kept for tests, by either of its scenes."""
        return self.source.held_out() or self.target.held_out()


def _others(values: tuple[str, ...], *used: str) -> list[str]:
    return [value for value in values if value not in used]


def _surroundings(source: Scene, kind: str, rng: random.Random) -> Edit | None:
    used = (source.time or source.background, *(thing.colour for thing in source.things))
    if kind == "time":
        if not source.time:
            return None
        into = rng.choice(_others(TIMES, *used))
        return Edit(kind, source, replace(source, time=into), -1, "", into)
    if not source.background:
        return None
    into = rng.choice(_others(COLOURS, *used))
    return Edit(kind, source, replace(source, background=into), -1, "", into)


def _thing(source: Scene, kind: str, rng: random.Random) -> Edit | None:
    index = rng.randrange(len(source.things))
    thing = source.things[index]
    what = plural(thing.kind) if thing.count > 1 else thing.kind
    if kind == "remove":
        return Edit(kind, source, source, index, what, "")
    if kind == "recolour":
        into = rng.choice(_others(COLOURS, thing.colour, source.background))
        changed = replace(thing, colour=into)
    else:
        used = [each.kind for each in source.things]
        boats = ("boat",) if source.time else ()  # a boat would turn the meadow into a lake
        if used[0] in boats:
            return None
        into = rng.choice(_others(KINDS, *used, *boats))
        changed = replace(thing, kind=into)
        into = plural(into) if thing.count > 1 else into
    things = tuple(changed if i == index else each for i, each in enumerate(source.things))
    return Edit(kind, source, replace(source, things=things), -1, what, into)


def choose(source: Scene, rng: random.Random, kind: str = "") -> Edit | None:
    """Choose an edit of a scene.

    Args:
        source: The scene before.
        rng: Chooses.
        kind: One of `EDITS`; empty chooses one that suits the scene.

    Returns:
        The edit, or None when that kind does not suit the scene.
    """
    if not kind:
        kinds = ["time"] * 3 if source.time else ["background"] * 2
        if source.things:
            kinds += ["recolour"] * 3 + ["remove", "swap"]
        kind = rng.choice(kinds)
    if kind in ("time", "background"):
        return _surroundings(source, kind, rng)
    return _thing(source, kind, rng) if source.things else None


def say(edit: Edit, rng: random.Random) -> str:
    """Return one wording of an edit, chosen by `rng`."""
    many = edit.kind == "swap" and edit.into.endswith("s")
    text = rng.choice(_SWAP_MANY if many else _FORMS[edit.kind])
    if edit.kind == "recolour" and rng.random() < 0.1:
        return (
            f"make it {edit.into}"
            if len(edit.source.things) == 1
            else text.format(edit.what, edit.into)
        )
    return text.format(edit.what, edit.into)


def words() -> set[str]:
    """Return every fixed word of the instructions."""
    forms = [form for group in (*_FORMS.values(), _SWAP_MANY) for form in group]
    return {word for form in forms for word in form.split() if "{" not in word}
