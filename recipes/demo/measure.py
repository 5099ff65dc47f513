"""Is what was asked for in the picture: colours, counts, places and kinds, by rule.

Every check is a plain rule on pixels at the places the scene prescribes, except the kind of a
thing, which the `judge` names. The rules are right on true drawings; how right is reported.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recipes.demo.drawing import SIZE_PX, Place
from recipes.demo.judge import Judge, canonical
from recipes.demo.palette import PAINT, SKY
from recipes.demo.scenes import TIMES, Scene

_NAMES = list(PAINT)
_LEVELS = np.array(list(PAINT.values()), np.float32)
_ALL = ((0.0, 0.05, 0.55),)
# Discs (x, y, radius) in the unit square of a thing where its body colour shows.
_BODY = {
    "triangle": ((0.0, 0.35, 0.42),),
    "house": ((-0.45, 0.04, 0.14), (0.0, 0.14, 0.16), (-0.4, 0.72, 0.14)),
    "tree": ((-0.1, -0.25, 0.35), (-0.42, 0.0, 0.2), (0.38, 0.0, 0.2)),
    "boat": ((-0.4, 0.52, 0.13), (0.0, 0.52, 0.13), (0.4, 0.52, 0.13)),
    "flower": (
        (0.37, -0.51, 0.18),
        (-0.37, -0.51, 0.18),
        (0.0, 0.13, 0.18),
        (0.0, -0.73, 0.18),
        (0.37, -0.08, 0.18),
        (-0.37, -0.08, 0.18),
    ),
    "cat": ((0.0, -0.6, 0.2), (-0.4, -0.05, 0.14), (0.4, -0.05, 0.14)),
}


def _nearest(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """Return palette indices (n,) for pixels (n, 3)."""
    distance = ((pixels[:, None].astype(np.float32) - _LEVELS) ** 2).sum(-1)
    nearest: NDArray[np.int64] = distance.argmin(1)
    return nearest


def background_of(picture: Image.Image) -> str:
    """Return the palette colour nearest to the median of the outer 5 pixels."""
    pixels = np.asarray(picture)
    frame = np.concatenate(
        [
            pixels[:5].reshape(-1, 3),
            pixels[-5:].reshape(-1, 3),
            pixels[:, :5].reshape(-1, 3),
            pixels[:, -5:].reshape(-1, 3),
        ]
    )
    return _NAMES[int(_nearest(np.median(frame, 0)[None])[0])]


def time_of(picture: Image.Image) -> str:
    """Return the time of day whose sky is nearest to the top of the picture."""
    pixels = np.asarray(picture)
    seen = np.stack([np.median(pixels[y : y + 8].reshape(-1, 3), 0) for y in (2, 56)])
    off = {time: float(((seen - np.array(SKY[time][:2])) ** 2).sum()) for time in TIMES}
    return min(off, key=lambda time: off[time])


def colour_of(picture: Image.Image, kind: str, place: Place) -> str:
    """Return the commonest palette colour of a thing's body."""
    pixels = np.asarray(picture)
    rows, columns = np.mgrid[0:SIZE_PX, 0:SIZE_PX]
    x, y, half = place
    inside = np.zeros((SIZE_PX, SIZE_PX), bool)
    for dx, dy, radius in _BODY.get(kind, _ALL):
        far = (columns - x - dx * half) ** 2 + (rows - y - dy * half) ** 2
        inside |= far <= (radius * half) ** 2
    votes = np.bincount(_nearest(pixels[inside]), minlength=len(_NAMES))
    return _NAMES[int(votes.argmax())]


def count_of(picture: Image.Image) -> int:
    """Return the number of separate things on a plain background."""
    small = np.asarray(picture.resize((64, 64), Image.Resampling.BOX)).astype(np.float32)
    ground = np.median(np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]]), 0)
    free = np.abs(small - ground).sum(-1) > 60
    number = 0
    while free.any():
        stack = [tuple(np.argwhere(free)[0])]
        free[stack[0]] = False
        size = 0
        while stack:
            y, x = stack.pop()
            size += 1
            for spot in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= spot[0] < 64 and 0 <= spot[1] < 64 and free[spot]:
                    free[spot] = False
                    stack.append(spot)
        number += size > 40
    return number


def check(picture: Image.Image, scene: Scene, judge: Judge, without: int = -1) -> dict[str, bool]:
    """Check a picture against a scene.

    Args:
        picture: RGB, `SIZE_PX` square.
        scene: What should be there.
        judge: Names the kinds.
        without: Index of a thing that should be gone, -1 for none.

    Returns:
        For each property that applies whether it is right: ``background``, ``time``, ``colour``
        (of every thing), ``kind`` (of every thing), ``count``, ``position`` (both kinds of a pair
        in their places), ``gone``, and ``all``.
    """
    right: dict[str, bool] = {}
    if scene.background:
        right["background"] = background_of(picture) == scene.background
    else:
        right["time"] = time_of(picture) == scene.time
    spots = canonical(scene)
    owners = [index for index, thing in enumerate(scene.things) for _ in range(thing.count)]
    if spots:
        seen = judge.see(picture, spots)
        left = [
            (owner, name, spot)
            for owner, name, spot in zip(owners, seen, spots, strict=True)
            if owner != without
        ]
        kinds = [name == scene.things[owner].kind for owner, name, _ in left]
        if left:
            right["kind"] = all(kinds)
            right["colour"] = all(
                colour_of(picture, scene.things[owner].kind, spot) == scene.things[owner].colour
                for owner, _, spot in left
            )
        if without >= 0:
            right["gone"] = all(
                name == "nothing"
                for owner, name in zip(owners, seen, strict=True)
                if owner == without
            )
        elif len(scene.things) == 2:
            right["position"] = all(kinds)
        elif scene.things[0].count > 1:
            right["count"] = count_of(picture) == scene.things[0].count
    right["all"] = all(right.values())
    return right
