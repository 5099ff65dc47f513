"""Scenes in words and back: a small grammar with many ways to say one thing.

Comes after `scenes`; the tokenizer learns its words from here, the denoiser its captions. `say`
chooses a wording at random, `read` returns the scene a wording means. The rule for things left out
is the same in both: the usual colour of a kind, the usual background of its things.
"""

import random
import re

from recipes.demo.scenes import (
    COLOURS,
    KINDS,
    RELATIONS,
    TIMES,
    USUAL_COLOUR,
    Scene,
    Thing,
    with_usual_background,
)

NUMBERS = {"two": 2, "three": 3, "four": 4}
TIME_WORDS = {
    "day": ("by day", "by day", "during the day", "in the daytime", "on a sunny day"),
    "sunset": ("at sunset", "at sunset", "during sunset", "in the evening", "at dusk"),
    "night": ("at night", "at night", "by night", "in the night", "under the stars"),
}
RELATION_WORDS = {
    "left": ("to the left of", "left of", "on the left of", "next to", "beside", "and"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "beneath"),
}
BACKGROUND_FORMS = (
    "{} on a {} background",
    "{} on a {} background",
    "{} on {}",
    "{}, {} background",
    "{} with a {} background",
    "{} in front of a {} background",
)
LANDSCAPE_FORMS = ("a landscape {}", "an empty landscape {}", "hills {}", "the hills {}")
OPENINGS = ("a picture of", "a drawing of", "an image of", "an illustration of", "draw", "show me")
FILLERS = ("big", "small", "cute", "nice", "little", "beautiful", "simple", "pretty", "bright")


def plural(kind: str) -> str:
    """Return the word for several of a kind."""
    return kind + "s"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _invented(rng: random.Random) -> str:
    """Return a word that means nothing, so that unknown words learn to mean nothing."""
    pairs = (rng.choice("bcdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
    return "".join(pairs) + rng.choice(("", "n", "r", "s", "t"))


def _noun(thing: Thing, rng: random.Random) -> str:
    words = [plural(thing.kind) if thing.count > 1 else thing.kind]
    if thing.colour != USUAL_COLOUR[thing.kind] or rng.random() < 0.75:
        words.insert(0, thing.colour)
    chance = rng.random()
    if chance < 0.06:
        words.insert(0, rng.choice(FILLERS) if chance < 0.04 else _invented(rng))
    if thing.count > 1:
        number = next(word for word, count in NUMBERS.items() if count == thing.count)
        words.insert(0, number if rng.random() < 0.85 else str(thing.count))
    else:
        form = rng.random()
        if form < 0.82:
            words.insert(0, _article(words[0]))
        elif form < 0.87:
            words.insert(0, rng.choice(("one", "the")))
    return " ".join(words)


def say(scene: Scene, rng: random.Random) -> str:
    """Return one wording of a scene, chosen by `rng`."""
    if not scene.things:
        return rng.choice(LANDSCAPE_FORMS).format(rng.choice(TIME_WORDS[scene.time]))
    text = _noun(scene.things[0], rng)
    if len(scene.things) == 2:
        relation = rng.choice(RELATION_WORDS[scene.relation])
        text = f"{text} {relation} {_noun(scene.things[1], rng)}"
    usual = with_usual_background(scene.things, scene.relation) == scene
    if not usual or rng.random() < 0.5:
        if scene.background:
            form = rng.choice(BACKGROUND_FORMS)
            text = form.format(text, scene.background)
            text = text.replace(" a orange", " an orange")
        else:
            when = rng.choice(TIME_WORDS[scene.time])
            form = rng.choice(("{0} {1}",) * 6 + ("{0}, {1}", "{1}, {0}", "{0}, {2}", "{0} {2}"))
            text = form.format(text, when, scene.time)
    if rng.random() < 0.06:
        text = f"{rng.choice(OPENINGS)} {text}"
    return text


_COLOUR = "|".join(COLOURS)
_NOUN = re.compile(
    rf"(?:({'|'.join(NUMBERS)}|[234])\s+)?((?:[a-z]+\s+)??)(?:({_COLOUR})\s+)?"
    rf"\b({'|'.join(KINDS)})(s?)\b"
)
_BACKGROUND = re.compile(
    rf"(?:(?:on|with|in front of)\s+)?(?:an?\s+|the\s+)?\b({_COLOUR})\s+background"
    rf"|\bon\s+({_COLOUR})\s*$"
)
_PHRASES = {phrase: name for name in RELATIONS for phrase in RELATION_WORDS[name]}
_TIMES = {phrase: time for time in TIMES for phrase in (*TIME_WORDS[time], time)}


def _find_thing(match: re.Match[str]) -> Thing:
    number, _, colour, kind, _ = match.groups()
    count = NUMBERS.get(number or "", int(number) if (number or "").isdigit() else 1)
    return Thing(kind, colour or USUAL_COLOUR[kind], count)


def read(text: str) -> Scene | None:
    """Return the scene a caption means, or None when it names none.

    Words outside the grammar are passed over, as the model learns to do.
    """
    text = text.lower()
    time = background = ""
    for phrase in sorted(_TIMES, key=len, reverse=True):
        if re.search(rf"\b{phrase}\b", text):
            time = _TIMES[phrase]
            text = re.sub(rf"\b{phrase}\b", " ", text)
            break
    ground = _BACKGROUND.search(text)
    if ground and not time:
        background = ground.group(1) or ground.group(2)
        text = text[: ground.start()] + text[ground.end() :]
    nouns = list(_NOUN.finditer(text))[:2]
    things = tuple(_find_thing(match) for match in nouns)
    if not things and not time:
        return None
    relation = ""
    if len(nouns) == 2:
        between = text[nouns[0].end() : nouns[1].start(4)]
        found = [phrase for phrase in _PHRASES if re.search(rf"\b{phrase}\b", between)]
        relation = _PHRASES[max(found, key=len)] if found else "left"
    if time or background:
        return Scene(things, relation, time, background)
    return with_usual_background(things, relation)
