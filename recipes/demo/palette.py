"""The colours of the demo world, as RGB levels 0-255: data, and mixing.

Read by drawing, which paints with them, and by measuring, which finds the nearest one.
"""

RGB = tuple[int, int, int]

PAINT: dict[str, RGB] = {
    "red": (221, 58, 60),
    "orange": (246, 144, 48),
    "yellow": (250, 208, 62),
    "green": (66, 168, 92),
    "blue": (62, 118, 216),
    "purple": (137, 82, 190),
    "pink": (245, 152, 188),
    "white": (250, 248, 244),
    "black": (46, 44, 54),
}

SKY: dict[str, tuple[RGB, RGB, RGB]] = {
    # top, middle, horizon
    "day": ((104, 182, 240), (160, 212, 246), (222, 240, 250)),
    "sunset": ((112, 84, 164), (238, 128, 124), (255, 206, 128)),
    "night": ((20, 24, 62), (40, 48, 102), (78, 86, 150)),
}
HILLS: dict[str, RGB] = {"day": (150, 206, 146), "sunset": (150, 92, 124), "night": (44, 56, 104)}
GRASS: dict[str, RGB] = {"day": (120, 190, 92), "sunset": (132, 106, 96), "night": (48, 80, 92)}
WATER: dict[str, RGB] = {"day": (78, 160, 214), "sunset": (176, 104, 140), "night": (36, 60, 116)}
WINDOW: dict[str, RGB] = {
    "day": (206, 234, 248),
    "sunset": (255, 222, 130),
    "night": (255, 224, 122),
}
ROOF: RGB = (92, 86, 116)
WOOD: RGB = (128, 84, 58)
LEAF: RGB = (74, 146, 76)
CREAM: RGB = (255, 246, 224)


def mix(one: RGB, other: RGB, share: float) -> RGB:
    """Return `one` moved by `share` (0-1) of the way to `other`."""
    return (
        round(one[0] + (other[0] - one[0]) * share),
        round(one[1] + (other[1] - one[1]) * share),
        round(one[2] + (other[2] - one[2]) * share),
    )


def darker(colour: RGB, share: float = 0.22) -> RGB:
    """Return `colour` moved towards a bluish black."""
    return mix(colour, (28, 24, 48), share)


def lighter(colour: RGB, share: float = 0.3) -> RGB:
    """Return `colour` moved towards white."""
    return mix(colour, (255, 255, 255), share)
