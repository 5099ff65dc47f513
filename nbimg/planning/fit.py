"""Fit a request to what a model takes: field by field, with a line for all that changes on the way.

Stage: the inside of `plan`. Comes in: a `Request`, a model, what it takes and, for a model that stands in
for another, whose names the request was written in. Goes out: the model's arguments and notices. Pure.
Must not: name a provider; it knows fields only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbimg.display import words
from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.planning.usual import USUAL
from nbimg.store.names import file_name
from nbimg.types import Capabilities, Field, ModelRef, Request, Size, parse_ratio

__all__ = ["Fit", "Origin"]

#: Our option → what a person calls it.
_READABLE = {"negative": "negative prompt", "steps": "step count", "lora": "LoRA"}
#: How far a ratio may be from the one that was asked for before a notice says so.
SEEN = 0.05
_MIME_WORDS = {
    ".png": ("png",),
    ".jpg": ("jpg", "jpeg"),
    ".jpeg": ("jpeg", "jpg"),
    ".webp": ("webp",),
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The model that another one stands in for.

    Attributes:
        ref: The model.
        can: What it takes; the `params` of the request are in its words.
        names: Its parameter → that of the model that stands in, where a rule says so.
    """

    ref: ModelRef
    can: Capabilities
    names: Mapping[str, str] = field(default_factory=dict)


class Fit:
    """The state of fitting one request: the model's arguments so far, and the notices.

    Args:
        request: What is asked.
        ref: The model.
        can: What it takes.
        origin: The model that it stands in for; what does not fit then is dropped, not refused.
    """

    def __init__(
        self, request: Request, ref: ModelRef, can: Capabilities, origin: Origin | None = None
    ) -> None:
        self.request, self.ref, self.can, self.origin = request, ref, can, origin
        self.arguments: dict[str, Any] = {}
        self.notices: list[str] = []

    def check(self) -> None:
        """Refuse what no translation can mend, and say which words mean nothing to the model."""
        own_prompt = "prompt" in self.request.params and (self.origin is None or self.can.open)
        if not self.request.prompt.strip() and not self.request.image and not own_prompt:
            raise InputError("the prompt is empty.", hint="Say what the picture shows.")
        self._output()
        self._images()
        self._unknown_words()

    def fill(self) -> None:
        """Set the model's arguments; the notices say what changed on the way."""
        request = self.request
        self._shape()
        for name in ("negative", "steps", "guidance", "strength", "scheduler"):
            self._option(name, getattr(request, name))
        self._option("lora", request.lora or None)
        self._file_format()
        if self.origin is None:
            self._params()
        else:
            self._translated_params(self.origin)

    def _output(self) -> None:
        """A file name that cannot be used is refused now, not when the image is paid for."""
        if self.request.output:
            values = {"index": 1, "prompt": self.request.prompt, "model": str(self.ref), "seed": 0}
            file_name(self.request.output, values, ".png")

    def _images(self) -> None:
        count, most = len(self.request.image), self.can.max_images
        needed = self.can.options.get("image")
        if not count and (not self.can.makes or (needed is not None and needed.required)):
            raise InputError(f"{self.ref} needs an input image.", hint="Give one with -i IMAGE.")
        if count and not most:
            raise InputError(
                f"{self.ref} takes no input image.", hint="%imgmodels shows which models do."
            )
        if count > most:
            raise InputError(
                f"{self.ref} takes {most} input image{'s' * (most > 1)}, not {count}.",
                hint="%imgmodels shows which models take more.",
            )
        if self.request.mask is not None and "mask" not in self.can.options:
            raise InputError(f"{self.ref} takes no mask.")

    def _shape(self) -> None:
        """Size and aspect ratio, by whichever of width and height, size or ratio the model takes."""
        size, ratio, options = self.request.size, self.request.ar, self.can.options
        if size is None and ratio is None:
            return
        if size is None and "ar" in options:
            self._ratio(parse_ratio(str(ratio)), f"aspect ratio {ratio}")
        elif size is not None and "size" in options:
            self._nearest_size(size)
        elif "width" in options and "height" in options:
            self._width_and_height(size or _sized(parse_ratio(str(ratio)), self.can.default_size))
        elif "ar" in options:
            assert size is not None
            self._ratio((size.width, size.height), f"size {size}")
        elif self.can.default_size is None or size != self.can.default_size:
            asked = f"size {size}" if size else f"aspect ratio {ratio}"
            why = "does not tell what it takes" if self.can.open else "has one size only"
            self.notices.append(f"{self.ref} {why}: {asked} dropped.")

    def _ratio(self, wanted: tuple[int, int], what: str) -> None:
        field = self.can.options["ar"]
        allowed = [text for text in field.allowed if re.fullmatch(r"\d+:\d+", str(text))]
        exact = "{}:{}".format(*parse_ratio("{}:{}".format(*wanted)))
        if exact in allowed and not what.startswith("size"):
            self.arguments[field.name] = exact
            return
        if not allowed:
            allowed = [exact]
        nearest = min(allowed, key=lambda text: _distance(parse_ratio(text), wanted))
        self.arguments[field.name] = nearest
        if _distance(parse_ratio(nearest), wanted) > 1e-9:
            self.notices.append(f"{self.ref}: {what} became the nearest aspect ratio, {nearest}.")
        elif what.startswith("size"):
            self.notices.append(f"{self.ref} takes aspect ratios: {what} became {nearest}.")

    def _nearest_size(self, wanted: Size) -> None:
        field = self.can.options["size"]
        sizes = [Size.parse(text) for text in field.allowed if re.fullmatch(r"\d+x\d+", str(text))]
        if not sizes or wanted in sizes:
            self.arguments[field.name] = str(wanted)
            return
        nearest = min(
            sizes,
            key=lambda size: (
                _distance((size.width, size.height), (wanted.width, wanted.height)),
                abs(size.width - wanted.width),
            ),
        )
        self.arguments[field.name] = str(nearest)
        self.notices.append(f"{self.ref}: size {wanted} became the nearest allowed, {nearest}.")

    def _width_and_height(self, wanted: Size) -> None:
        fields = self.can.options["width"], self.can.options["height"]
        width, height = (
            int(_clamped(field, value))
            for field, value in zip(fields, (wanted.width, wanted.height), strict=True)
        )
        self.arguments[fields[0].name], self.arguments[fields[1].name] = width, height
        made = f"{width}x{height}"
        if self.request.size is not None and Size(width, height) != wanted:
            self.notices.append(f"{self.ref}: size {wanted} became {made}.")
        elif self.request.size is None and _far((width, height), wanted):
            self.notices.append(f"{self.ref}: aspect ratio {self.request.ar} became {made}.")

    def _option(self, name: str, value: Any) -> None:
        """One option that either has a field of its own or is dropped with a notice."""
        if value is None:
            return
        field, called = self.can.options.get(name), _READABLE.get(name, name)
        if field is None:
            self.notices.append(f"{self.ref} takes no {called}: dropped.")
            return
        if field.type in ("integer", "number"):
            fitted = _clamped(field, value)
            if fitted != value:
                self.notices.append(f"{self.ref}: {called} {value:g} became {fitted:g}.")
            value = fitted
        elif field.allowed and value not in field.allowed:
            if self.origin is not None:
                self.notices.append(f"{self.ref} has no {called} {value!r}: dropped.")
                return
            raise OptionError(
                f"{self.ref} has no {called} {value!r}.",
                allowed=[str(item) for item in field.allowed],
                hint=f"It has: {', '.join(map(str, field.allowed))}.",
            )
        self.arguments[field.name] = value

    def _unknown_words(self) -> None:
        """A closed vocabulary: say which words mean nothing to the model, and what it can draw."""
        if not self.can.vocabulary:
            return
        words = dict.fromkeys(re.findall(r"[^\W\d_]+", self.request.prompt.lower()))
        unknown = [word for word in words if word not in self.can.vocabulary]
        if unknown:
            listed = ", ".join(repr(word) for word in unknown[:5])
            self.notices.append(
                f"{self.ref} does not know {listed}. {self.can.about_vocabulary}".strip()
            )

    def _file_format(self) -> None:
        """Ask the provider for the format that the output name wants."""
        field = self.can.options.get("format")
        suffix = re.search(r"\.\w+$", self.request.output or "")
        if field is None or suffix is None:
            return
        for word in _MIME_WORDS.get(suffix[0].lower(), ()):
            if not field.allowed or word in field.allowed:
                self.arguments[field.name] = word
                return

    def _own(self) -> dict[str, Field]:
        """Every field of the model, by its own name."""
        return {**{field.name: field for field in self.can.options.values()}, **self.can.extra}

    def _params(self) -> None:
        """`params`: the model's own names, checked where they are known."""
        own = self._own()
        for name, value in self.request.params.items():
            field = own.get(name)
            if field is None and not self.can.open:
                self._usual(name, value)
                continue
            if field is not None:
                _check(self.ref, field, value)
            self.arguments[name] = value

    def _usual(self, name: str, value: Any) -> None:
        """A name that other models have: in this one's words, else dropped; one of none is an error."""
        if name not in USUAL:
            raise UnknownNameError(f"parameter of {self.ref}", name, known=self._own())
        field = self.can.options.get(USUAL[name] or "")
        if field is None or field.name in self.request.params:
            self.notices.append(f"{self.ref} takes no {name}: dropped.")
            return
        before = len(self.notices)
        if self._reworded(field, name, value):
            self.notices.insert(before, f"{self.ref}: {name} became {field.name}.")

    def _translated_params(self, origin: Origin) -> None:
        """`params` in the words of another model: by the rule, by our options, by the same name."""
        own, options = self._own(), {f.name: option for option, f in origin.can.options.items()}
        for name, value in self.request.params.items():
            option = options.get(name)
            field = own.get(origin.names.get(name, ""))
            field = field or self.can.options.get(option or "") or own.get(name)
            if field is None and self.can.open:
                self.arguments[name] = value
            elif field is None:
                self.notices.append(f"{self.ref} takes no {name}: dropped.")
            else:
                self._reworded(field, name, value)

    def _reworded(self, field: Field, name: str, value: Any) -> bool:
        """One value of another model's parameter; False when `field` does not take it: dropped."""
        is_ratio = re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(value))
        if field is self.can.options.get("ar") and is_ratio:
            self._ratio(parse_ratio(str(value)), f"aspect ratio {value}")
            return True
        fitted = value
        if field.type in ("integer", "number") and _is_number(value):
            fitted = _clamped(field, value)
        elif field.type == "files" and isinstance(value, str):
            fitted = [value]
        elif field.type == "file" and isinstance(value, list | tuple) and len(value) == 1:
            fitted = value[0]
        try:
            _check(self.ref, field, fitted)
            _check_file(field, fitted)
        except OptionError:
            shown = words.shorten(repr(value), 40)  # it may be a whole picture
            self.notices.append(f"{self.ref} has no {name} {shown}: dropped.")
            return False
        self.arguments[field.name] = fitted
        if fitted != value and _is_number(value):
            self.notices.append(f"{self.ref}: {name} {value:g} became {fitted:g}.")
        return True


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    """How far two ratios are apart, 1 and up, the same both ways round; 0 when equal."""
    quotient = (one[0] * other[1]) / (one[1] * other[0])
    return max(quotient, 1 / quotient) - 1


def _far(made: tuple[int, int], wanted: Size) -> bool:
    """Whether a person sees that the ratio is another one: rounding to whole blocks is not seen."""
    return _distance(made, (wanted.width, wanted.height)) > SEEN


def _sized(ratio: tuple[int, int], default: Size | None) -> Size:
    """Return the size of that ratio with the area of the model's default one."""
    area = (default.width * default.height) if default else 1024 * 1024
    height = (area * ratio[1] / ratio[0]) ** 0.5
    return Size(max(1, round(height * ratio[0] / ratio[1])), max(1, round(height)))


def _clamped(field: Field, value: float) -> float:
    if field.multiple:
        value = max(field.multiple, round(value / field.multiple) * field.multiple)
    if field.minimum is not None:
        value = max(value, field.minimum)
    if field.maximum is not None:
        value = min(value, field.maximum)
    return int(value) if field.type == "integer" else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
}


def _check_file(field: Field, value: Any) -> None:
    """A file that stands in `params` is an address, or a list of them."""
    if field.type not in ("file", "files"):
        return
    given = [value] if field.type == "file" else value
    if not isinstance(given, list) or not all(
        isinstance(one, str) and re.match(r"(https?://|data:)", one) for one in given
    ):
        raise OptionError(f"{field.name} is no address of a file.")


def _check(ref: ModelRef, field: Field, value: Any) -> None:
    wanted = _TYPES.get(field.type)
    if wanted and (
        not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)
    ):
        raise OptionError(f"{ref}: {field.name} is a {field.type}, not {value!r}.")
    if field.allowed and value not in field.allowed:
        raise OptionError(
            f"{ref}: {field.name} {value!r} is not allowed.",
            allowed=[str(item) for item in field.allowed],
            hint=f"It takes: {', '.join(map(str, field.allowed))}.",
        )
    low, high = field.minimum, field.maximum
    if field.type not in ("integer", "number"):
        return
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = (
            f"between {low} and {high}"
            if low is not None and high is not None
            else (f"at least {low}" if high is None else f"at most {high}")
        )
        raise OptionError(f"{ref}: {field.name} {value!r} is not {bounds}.")
