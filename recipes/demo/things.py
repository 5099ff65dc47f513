"""How each thing looks: one function a kind, painting with a `Pen` in its own unit square.

Coordinates run from -1 to 1, x to the right and y down; the pen maps them to pixels. Every thing
fills its square, is large and plain, and has parts big enough to survive the autoencoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

from PIL import ImageDraw

from recipes.demo.palette import CREAM, LEAF, PAINT, RGB, ROOF, WINDOW, WOOD, darker, lighter, mix

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pen:
    """Paints in a square around (x, y) with half side `half`, all in canvas pixels."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    half: float
    time: str = ""

    def _at(self, point: Point) -> Point:
        return (self.x + point[0] * self.half, self.y + point[1] * self.half)

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        """Fill a polygon."""
        self.draw.polygon([self._at(point) for point in points], fill=fill)

    def oval(self, x: float, y: float, width: float, height: float, fill: RGB) -> None:
        """Fill an ellipse around (x, y) with the half axes `width` and `height`."""
        box = [self._at((x - width, y - height)), self._at((x + width, y + height))]
        self.draw.ellipse(box, fill=fill)

    def box(self, corners: tuple[float, float, float, float], fill: RGB, curve: float = 0) -> None:
        """Fill a rectangle (left, top, right, bottom) with rounded corners."""
        left, top, right, bottom = corners
        box = [self._at((left, top)), self._at((right, bottom))]
        self.draw.rounded_rectangle(box, radius=curve * self.half, fill=fill)

    def stroke(self, points: Sequence[Point], fill: RGB, width: float) -> None:
        """Draw a line with round ends, `width` wide."""
        spots = [self._at(point) for point in points]
        self.draw.line(spots, fill=fill, width=max(1, round(width * self.half)), joint="curve")
        for x, y in (spots[0], spots[-1]):
            r = width * self.half / 2
            self.draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)


def _scaled(points: Sequence[Point], factor: float, centre: Point = (0, 0)) -> list[Point]:
    return [
        (centre[0] + (x - centre[0]) * factor, centre[1] + (y - centre[1]) * factor)
        for x, y in points
    ]


def _edge(colour: RGB) -> RGB:
    return mix(colour, (120, 116, 140), 0.45) if colour == PAINT["white"] else darker(colour, 0.32)


def _circle(pen: Pen, colour: RGB) -> None:
    pen.oval(0, 0, 0.92, 0.92, _edge(colour))
    pen.oval(0, 0, 0.83, 0.83, colour)
    pen.oval(-0.34, -0.38, 0.2, 0.17, lighter(colour, 0.4))


def _square(pen: Pen, colour: RGB) -> None:
    pen.box((-0.84, -0.84, 0.84, 0.84), _edge(colour), 0.12)
    pen.box((-0.75, -0.75, 0.75, 0.75), colour, 0.08)
    pen.box((-0.58, -0.58, -0.1, -0.4), lighter(colour, 0.4), 0.09)


def _triangle(pen: Pen, colour: RGB) -> None:
    corners: list[Point] = [(0, -0.92), (0.98, 0.82), (-0.98, 0.82)]
    pen.polygon(corners, _edge(colour))
    pen.polygon(_scaled(corners, 0.84, (0, 0.26)), colour)
    pen.polygon([(-0.05, -0.42), (0.06, -0.28), (-0.32, 0.3), (-0.44, 0.24)], lighter(colour, 0.4))


def _star(pen: Pen, colour: RGB) -> None:
    points: list[Point] = []
    for corner in range(10):
        radius = 1.02 if corner % 2 == 0 else 0.46
        angle = corner * pi / 5 - pi / 2
        points.append((radius * cos(angle), 0.06 + radius * sin(angle)))
    pen.polygon(points, _edge(colour))
    pen.polygon(_scaled(points, 0.83, (0, 0.06)), colour)
    pen.polygon([(0, -0.66), (0.09, -0.36), (-0.16, -0.12), (-0.2, -0.24)], lighter(colour, 0.4))


def _heart(pen: Pen, colour: RGB) -> None:
    points: list[Point] = []
    for step in range(60):
        t = step * 2 * pi / 60
        x = 16 * sin(t) ** 3
        y = 13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)
        points.append((x / 16.6, -y / 16 - 0.1))
    pen.polygon(points, _edge(colour))
    pen.polygon(_scaled(points, 0.87, (0, -0.06)), colour)
    pen.oval(-0.45, -0.42, 0.19, 0.15, lighter(colour, 0.4))


def _house(pen: Pen, colour: RGB) -> None:
    roof = mix(ROOF, (150, 80, 70), 0.6) if colour == PAINT["black"] else ROOF
    pen.box((0.36, -0.86, 0.58, -0.3), darker(WOOD, 0.1))
    pen.box((-0.74, -0.2, 0.74, 0.9), colour)
    pen.box((0.42, -0.2, 0.74, 0.9), darker(colour, 0.14))
    pen.polygon([(0, -0.98), (0.98, -0.1), (-0.98, -0.1)], roof)
    pen.polygon([(-0.98, -0.1), (0.98, -0.1), (0.9, 0), (-0.9, 0)], darker(roof, 0.3))
    pen.box((-0.17, 0.34, 0.17, 0.9), WOOD, 0.05)
    for left in (-0.62, 0.3):
        pen.box((left, 0.18, left + 0.32, 0.52), CREAM)
        pen.box((left + 0.05, 0.23, left + 0.27, 0.47), WINDOW[pen.time or "day"])


def _tree(pen: Pen, colour: RGB) -> None:
    pen.polygon([(-0.12, 0.2), (0.12, 0.2), (0.2, 0.94), (-0.2, 0.94)], WOOD)
    shade, light = darker(colour, 0.2), lighter(colour, 0.22)
    pen.oval(0, -0.2, 0.66, 0.6, shade)
    pen.oval(-0.42, 0.04, 0.44, 0.4, shade)
    pen.oval(0.42, 0.04, 0.44, 0.4, shade)
    pen.oval(-0.08, -0.3, 0.56, 0.5, colour)
    pen.oval(-0.44, 0, 0.38, 0.33, colour)
    pen.oval(0.38, 0, 0.38, 0.33, colour)
    pen.oval(-0.24, -0.46, 0.24, 0.19, light)


def _boat(pen: Pen, colour: RGB) -> None:
    pen.box((-0.05, -0.96, 0.05, 0.4), WOOD)
    pen.polygon([(0.1, -0.9), (0.78, 0.28), (0.1, 0.28)], CREAM)
    pen.polygon([(-0.1, -0.62), (-0.1, 0.28), (-0.62, 0.28)], darker(CREAM, 0.12))
    pen.polygon([(-0.96, 0.38), (0.96, 0.38), (0.62, 0.88), (-0.62, 0.88)], colour)
    pen.polygon([(-0.83, 0.58), (0.83, 0.58), (0.62, 0.88), (-0.62, 0.88)], darker(colour, 0.2))


def _flower(pen: Pen, colour: RGB) -> None:
    pen.stroke([(0, 0.1), (0, 0.92)], LEAF, 0.12)
    pen.oval(-0.28, 0.62, 0.26, 0.12, LEAF)
    pen.oval(0.28, 0.72, 0.26, 0.12, LEAF)
    for petal in range(6):
        angle = petal * pi / 3 + pi / 6
        x, y = 0.43 * cos(angle), -0.3 + 0.43 * sin(angle)
        pen.oval(x, y, 0.29, 0.29, _edge(colour))
        pen.oval(x, y, 0.24, 0.24, colour)
    middle = (176, 104, 44) if colour in (PAINT["yellow"], PAINT["orange"]) else (252, 206, 70)
    pen.oval(0, -0.3, 0.27, 0.27, middle)


def _cat(pen: Pen, colour: RGB) -> None:
    dark, light = _edge(colour), lighter(colour, 0.45)
    pen.stroke([(0.4, 0.8), (0.72, 0.76), (0.86, 0.5), (0.76, 0.26)], dark, 0.2)
    pen.oval(0, 0.5, 0.52, 0.46, colour)
    pen.oval(0, 0.62, 0.28, 0.3, light)
    pen.oval(-0.24, 0.9, 0.2, 0.1, dark)
    pen.oval(0.24, 0.9, 0.2, 0.1, dark)
    for side in (-1, 1):
        pen.polygon([(side * 0.66, -1), (side * 0.1, -0.66), (side * 0.64, -0.3)], colour)
        pen.polygon(
            [(side * 0.56, -0.82), (side * 0.28, -0.62), (side * 0.56, -0.46)],
            PAINT["pink"] if colour != PAINT["pink"] else lighter(colour, 0.5),
        )
    pen.oval(0, -0.28, 0.66, 0.52, colour)
    iris = PAINT["yellow"] if colour == PAINT["black"] else (40, 44, 52)
    for side in (-1, 1):
        pen.oval(side * 0.28, -0.34, 0.13, 0.15, iris)
        pen.oval(side * 0.28 - 0.04, -0.39, 0.045, 0.05, (255, 255, 255))
    pen.oval(0, -0.08, 0.24, 0.16, light)
    pen.polygon([(-0.09, -0.16), (0.09, -0.16), (0, -0.05)], (206, 92, 108))


PAINTERS: dict[str, Callable[[Pen, RGB], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "flower": _flower,
    "cat": _cat,
}
