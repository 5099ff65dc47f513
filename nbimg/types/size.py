"""Width, height and their ratio.

Stage: part of the vocabulary (`nbimg.types`). Must not: know a model.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from nbimg.errors import OptionError

__all__ = ["Size", "parse_ratio"]


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels, in that order."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str | Size | tuple[int, int]) -> Size:
        """Read `WxH` in pixels.

        >>> Size.parse("1024x768")
        Size(width=1024, height=768)

        Raises:
            OptionError: When the text is not two positive whole numbers.
        """
        if isinstance(text, Size):
            return text
        if isinstance(text, tuple):
            text = "x".join(map(str, text))
        match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×*]\s*(\d{1,5})\s*", str(text))
        if match is None or 0 in (int(match[1]), int(match[2])):
            raise OptionError(
                f"size {text!r} is not WxH in pixels.", hint="Write it like 1024x768."
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def ratio(self) -> float:
        """Width divided by height."""
        return self.width / self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def parse_ratio(text: str) -> tuple[int, int]:
    """Read an aspect ratio `W:H`, in lowest terms.

    >>> parse_ratio("8:6")
    (4, 3)

    Raises:
        OptionError: When the text is not two positive whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*:\s*(\d{1,5})\s*", str(text))
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise OptionError(f"aspect ratio {text!r} is not W:H.", hint="Write it like 16:9.")
    width, height = int(match[1]), int(match[2])
    divisor = math.gcd(width, height)
    return width // divisor, height // divisor
