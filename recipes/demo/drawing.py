"""Scene and seed in, picture out: landscapes, places, and the things on them.

The seed decides what the scene leaves open (clouds, stars, a little play in place and size) and
nothing else, in a fixed order: two scenes with the same seed share these choices, which is what
makes a pair of pictures an edit.
"""

import random
from dataclasses import dataclass
from functools import cache
from math import atan2, cos, hypot, radians, sin

from PIL import Image, ImageDraw

from recipes.demo.palette import GRASS, HILLS, PAINT, RGB, SKY, WATER, darker, lighter, mix
from recipes.demo.scenes import FIGURES, Scene
from recipes.demo.things import PAINTERS, Pen

SIZE_PX = 192
SCALE = 3  # drawn this much larger, then averaged: smooth edges
HORIZON = 124
GROUND = 160  # y where grounded things stand in a landscape

Place = tuple[float, float, float]  # centre x, centre y, half side; in picture pixels


@dataclass(frozen=True, slots=True)
class Chance:
    """What a seed decides; places in picture pixels, play in -1..1."""

    play: tuple[tuple[float, float, float], ...]
    clouds: tuple[tuple[float, float, float], ...]
    stars: tuple[tuple[float, float, float], ...]
    light: tuple[float, float]
    hills: tuple[float, float]


def chance(seed: int) -> Chance:
    """Return the choices of a seed."""
    rng = random.Random(seed)

    def spread() -> float:
        return rng.uniform(-1, 1)

    return Chance(
        play=tuple((spread(), spread(), spread()) for _ in range(2)),
        clouds=tuple(
            (x + 16 * spread(), 38 + 14 * spread(), 1 + 0.2 * spread()) for x in (88, 150)
        ),
        stars=tuple(
            (
                12 + 56 * (i % 3) + 26 * (1 + spread()),
                10 + 26 * (i // 3) + 10 * spread(),
                2.1 + 0.5 * spread(),
            )
            for i in range(9)
        ),
        light=(spread(), spread()),
        hills=(spread(), spread()),
    )


@cache
def _sky(time: str) -> Image.Image:
    top, middle, low = SKY[time]
    column = Image.new("RGB", (1, HORIZON))
    for y in range(HORIZON):
        part = 2 * y / (HORIZON - 1)
        column.putpixel((0, y), mix(top, middle, part) if part < 1 else mix(middle, low, part - 1))
    canvas = Image.new("RGB", (SIZE_PX * SCALE, SIZE_PX * SCALE), low)
    size = (SIZE_PX * SCALE, HORIZON * SCALE)
    canvas.paste(column.resize(size, Image.Resampling.BILINEAR), (0, 0))
    return canvas


def _crescent(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return the outline of a moon open to the upper left, in canvas pixels."""
    outer = [radians(angle) for angle in range(-70, 161, 10)]
    points = [(x + radius * cos(a), y + radius * sin(a)) for a in outer]
    middle = (x - 0.42 * radius, y - 0.42 * radius)
    first, last = points[-1], points[0]
    reach = hypot(last[0] - middle[0], last[1] - middle[1])
    start = atan2(first[1] - middle[1], first[0] - middle[0])
    end = atan2(last[1] - middle[1], last[0] - middle[0])
    inner = [start + (end - start) * step / 20 for step in range(21)]
    points += [(middle[0] + reach * cos(a), middle[1] + reach * sin(a)) for a in inner]
    return [(px * SCALE, py * SCALE) for px, py in points]


def _landscape(time: str, water: bool, luck: Chance) -> Image.Image:
    canvas = _sky(time).copy()
    draw = ImageDraw.Draw(canvas)

    def oval(x: float, y: float, wide: float, high: float, fill: RGB) -> None:
        box = [(x - wide) * SCALE, (y - high) * SCALE, (x + wide) * SCALE, (y + high) * SCALE]
        draw.ellipse(box, fill=fill)

    top, middle, _ = SKY[time]
    across, down = luck.light[0] * 5, luck.light[1] * 4
    if time == "day":
        x, y = 34 + across, 34 + down
        oval(x, y, 25, 25, mix(top, (255, 250, 220), 0.55))
        oval(x, y, 18, 18, (255, 222, 92))
        for x, y, size in luck.clouds:
            for dx, dy, wide, high in ((-13, 3, 13, 8), (12, 3, 14, 8), (0, -4, 13, 12)):
                oval(x + dx * size, y + dy * size, wide * size, high * size, (252, 253, 255))
    elif time == "sunset":
        x, y = 38 + 1.6 * across, 98 + down
        oval(x, y, 36, 36, mix(middle, (255, 224, 150), 0.5))
        oval(x, y, 25, 25, (255, 238, 172))
    else:
        for x, y, size in luck.stars:
            oval(x, y, size, size, (236, 236, 255))
        x, y = 158 + across, 34 + down
        draw.polygon(_crescent(x, y, 22), fill=(252, 244, 206))
    hill = HILLS[time]
    oval(44 + 14 * luck.hills[0], 142, 84, 34, hill)
    oval(158 + 12 * luck.hills[1], 144, 74, 42, darker(hill, 0.08))
    if water:
        draw.rectangle([0, 130 * SCALE, SIZE_PX * SCALE, SIZE_PX * SCALE], fill=WATER[time])
        for x, y, wide in ((30, 146, 18), (150, 152, 24), (52, 178, 24), (138, 182, 18)):
            oval(x + 6 * luck.hills[0], y, wide, 1.8, lighter(WATER[time], 0.28))
    else:
        grass = GRASS[time]
        oval(96, 230, 190, 92, grass)
        oval(96, 260, 190, 92, darker(grass, 0.08))
    return canvas


def places(scene: Scene, luck: Chance) -> list[Place]:
    """Return where each thing of a scene goes, in reading order.

    Args:
        scene: What to place; one thing with a count of n gives n places.
        luck: Play, at most a few pixels and a few per cent.

    Returns:
        Centre x, centre y and half side in picture pixels, for every single thing.
    """
    spots: list[Place]
    standing = bool(scene.time)
    if len(scene.things) == 2:
        near, far = 50.0, 142.0
        flip = scene.relation in ("right", "below")
        ends = (far, near) if flip else (near, far)
        if scene.relation in ("above", "below"):
            spots = [(96.0, end, 41.0) for end in ends]
        else:
            spots = [(end, GROUND - 41.0 if standing else 98.0, 41.0) for end in ends]
    else:
        count = scene.things[0].count if scene.things else 0
        if count <= 1:
            spots = [(96.0, 108.0 if standing else 97.0, 58.0 if standing else 68.0)] * count
        elif count == 2:
            spots = [(50.0, 98.0, 41.0), (142.0, 98.0, 41.0)]
        elif count == 3:
            spots = [(34.0, 98.0, 28.5), (96.0, 98.0, 28.5), (158.0, 98.0, 28.5)]
        else:
            spots = [(x, y, 39.0) for y in (51.0, 141.0) for x in (51.0, 141.0)]
    moved = []
    for index, (x, y, half) in enumerate(spots):
        across, down, size = luck.play[min(index, 1) if len(scene.things) == 2 else 0]
        reach = 0.1 * half if len(spots) == 1 else 0.06 * half
        rise = 0.3 if standing else 1.0  # feet stay near the ground
        moved.append((x + across * reach, y + down * reach * rise, half * (1 + 0.06 * size)))
    return moved


def draw(scene: Scene, seed: int, without: int = -1) -> Image.Image:
    """Draw a scene.

    Args:
        scene: What to draw.
        seed: Decides what the scene leaves open.
        without: Index of a thing of `scene` to leave out with everything else in its place;
            -1 leaves nothing out.

    Returns:
        An RGB picture of `SIZE_PX` x `SIZE_PX` pixels.
    """
    luck = chance(seed)
    if scene.time:
        boat = any(thing.kind == "boat" for thing in scene.things)
        canvas = _landscape(scene.time, boat, luck)
        floor = (WATER if boat else GRASS)[scene.time]
    else:
        floor = PAINT[scene.background]
        canvas = Image.new("RGB", (SIZE_PX * SCALE, SIZE_PX * SCALE), floor)
    brush = ImageDraw.Draw(canvas)
    owners = [index for index, thing in enumerate(scene.things) for _ in range(thing.count)]
    for index, (x, y, half) in zip(owners, places(scene, luck), strict=True):
        if index == without:
            continue
        thing = scene.things[index]
        pen = Pen(brush, x * SCALE, y * SCALE, half * SCALE, scene.time)
        shadow = lighter(floor, 0.16) if floor == PAINT["black"] else darker(floor, 0.2)
        if thing.kind in FIGURES or scene.time:
            pen.oval(0, 0.92, 0.86, 0.1, shadow)
        PAINTERS[thing.kind](pen, PAINT[thing.colour])
    return canvas.reduce(SCALE)
