"""What a model takes.

Stage: part of the vocabulary (`nbimg.types`). Must not: know a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbimg.types.size import Size

__all__ = ["Capabilities", "Field"]


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of a model, under the model's own name.

    Attributes:
        name: What the model calls it.
        type: `string`, `integer`, `number`, `boolean`, `file` or `files`.
        default: What the model uses when it is not sent.
        allowed: The only values it takes; empty: any.
        minimum: Smallest number, or fewest files.
        maximum: Largest number, or most files.
        multiple: Numbers must be a multiple of this.
        help: The provider's own description.
        required: Whether the model refuses a request without it.
    """

    name: str
    type: str = "string"
    default: Any = None
    allowed: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    multiple: int | None = None
    help: str = ""
    required: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What a model takes.

    Attributes:
        options: Our option name (`seed`, `ar`, `guidance` …) → the model's field. An option that is
            not here is not taken.
        extra: The model's other fields by their own names, for `params`.
        default_size: Pixels it makes when none are asked for, where known.
        composes: Whether several input images become one picture.
        makes: Whether it works from a prompt alone.
        price_usd: Per image, where known.
        price_at: The day the price was read, `YYYY-MM-DD`.
        vocabulary: For a model with a closed vocabulary, its words in lower case; else empty.
        about_vocabulary: What such a model can draw, in one line.
        open: Whether fields that are not listed are passed on all the same.
        steady: Field → the value with which a seed takes effect; sent with every seed.
    """

    options: Mapping[str, Field] = field(default_factory=dict)
    extra: Mapping[str, Field] = field(default_factory=dict)
    default_size: Size | None = None
    composes: bool = False
    makes: bool = True
    price_usd: float | None = None
    price_at: str | None = None
    vocabulary: frozenset[str] = frozenset()
    about_vocabulary: str = ""
    open: bool = False
    steady: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_images(self) -> int:
        """How many input images it takes: 0, 1 or more."""
        images = self.options.get("image")
        if images is None:
            return 0
        return 1 if images.type == "file" else int(images.maximum or 1000)
