"""Fit a request to a model: what is sent, what was translated or dropped, and the price.

Stage: between expansion and the engine. Comes in: a `Request`, a model, what the model takes. Goes
out: a `Planned` with one `Call` for each call that will be made. Pure: no network, no clock, no
random numbers (the seed is handed in). Must not: name a provider; it knows fields only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbimg.backends.base import Call
from nbimg.errors import InputError, OptionError, UnknownNameError
from nbimg.store.names import file_name
from nbimg.types import Capabilities, Field, ModelRef, Request, Size, parse_ratio

__all__ = ["Planned", "plan"]

#: Our option → what a person calls it.
_READABLE = {"negative": "negative prompt", "steps": "step count", "lora": "LoRA"}
_MIME_WORDS = {
    ".png": ("png",),
    ".jpg": ("jpg", "jpeg"),
    ".jpeg": ("jpeg", "jpg"),
    ".webp": ("webp",),
}


@dataclass(frozen=True)
class Planned:
    """A task that is ready to run.

    Attributes:
        index: 0-based place in its batch.
        request: What was asked.
        ref: The model that will be used.
        calls: One for each call to it, variants in order.
        notices: What was translated or dropped, and why.
        cost_usd: Of all calls; None where the price is unknown.
        asked: What the user named, when anything.
    """

    index: int
    request: Request
    ref: ModelRef
    calls: tuple[Call, ...]
    notices: tuple[str, ...] = ()
    cost_usd: float | None = None
    asked: str | None = None


def plan(index: int, request: Request, ref: ModelRef, can: Capabilities, *, seed: int) -> Planned:
    """Fit `request` to a model.

    Args:
        index: Place of the task in its batch.
        request: What is asked; images are `InputImage`s.
        ref: The model.
        can: What it takes.
        seed: The base seed when the request names none and the model takes seeds.

    Raises:
        InputError: When the model cannot do what is essential: an image it does not take, an image
            it needs, a parameter of `params` that it does not have or does not allow.
    """
    fit = _Fit(request, ref, can)
    fit.output()
    fit.images()
    fit.shape()
    for name in ("negative", "steps", "guidance", "strength", "scheduler"):
        fit.option(name, getattr(request, name))
    fit.option("lora", request.lora or None)
    fit.unknown_words()
    fit.file_format()
    fit.params()
    calls = fit.calls(request.n, seed)
    cost = None if can.price_usd is None else can.price_usd * request.n
    return Planned(index, request, ref, calls, tuple(fit.notices), cost, request.model)


class _Fit:
    """The state of fitting one request: the model's arguments so far, and the notices."""

    def __init__(self, request: Request, ref: ModelRef, can: Capabilities) -> None:
        self.request, self.ref, self.can = request, ref, can
        if not request.prompt.strip() and not request.image and "prompt" not in request.params:
            raise InputError("the prompt is empty.", hint="Say what the picture shows.")
        self.arguments: dict[str, Any] = {}
        self.notices: list[str] = []

    def output(self) -> None:
        """A file name that cannot be used is refused now, not when the image is paid for."""
        if self.request.output:
            values = {"index": 1, "prompt": self.request.prompt, "model": str(self.ref), "seed": 0}
            file_name(self.request.output, values, ".png")

    def images(self) -> None:
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

    def shape(self) -> None:
        """Size and aspect ratio, by whichever of width and height, size or ratio the model takes."""
        size, ratio, options = self.request.size, self.request.ar, self.can.options
        if size is None and ratio is None:
            return
        if size is None and "ar" in options:
            self.ratio(parse_ratio(str(ratio)), f"aspect ratio {ratio}")
        elif size is not None and "size" in options:
            self.nearest_size(size)
        elif "width" in options and "height" in options:
            self.width_and_height(size or _sized(parse_ratio(str(ratio)), self.can.default_size))
        elif "ar" in options:
            assert size is not None
            self.ratio((size.width, size.height), f"size {size}")
        elif self.can.default_size is None or size != self.can.default_size:
            asked = f"size {size}" if size else f"aspect ratio {ratio}"
            why = "does not tell what it takes" if self.can.open else "has one size only"
            self.notices.append(f"{self.ref} {why}: {asked} dropped.")

    def ratio(self, wanted: tuple[int, int], what: str) -> None:
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

    def nearest_size(self, wanted: Size) -> None:
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

    def width_and_height(self, wanted: Size) -> None:
        fields = self.can.options["width"], self.can.options["height"]
        width, height = (
            int(_clamped(field, value))
            for field, value in zip(fields, (wanted.width, wanted.height), strict=True)
        )
        self.arguments[fields[0].name], self.arguments[fields[1].name] = width, height
        if self.request.size is not None and Size(width, height) != wanted:
            self.notices.append(f"{self.ref}: size {wanted} became {width}x{height}.")

    def option(self, name: str, value: Any) -> None:
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
            raise OptionError(
                f"{self.ref} has no {called} {value!r}.",
                allowed=[str(item) for item in field.allowed],
                hint=f"It has: {', '.join(map(str, field.allowed))}.",
            )
        self.arguments[field.name] = value

    def unknown_words(self) -> None:
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

    def file_format(self) -> None:
        """Ask the provider for the format that the output name wants."""
        field = self.can.options.get("format")
        suffix = re.search(r"\.\w+$", self.request.output or "")
        if field is None or suffix is None:
            return
        for word in _MIME_WORDS.get(suffix[0].lower(), ()):
            if not field.allowed or word in field.allowed:
                self.arguments[field.name] = word
                return

    def params(self) -> None:
        """`params`: the model's own names, checked where they are known."""
        own: dict[str, Field] = {field.name: field for field in self.can.options.values()}
        own.update(self.can.extra)
        for name, value in self.request.params.items():
            field = own.get(name)
            if field is None and not self.can.open:
                raise UnknownNameError(f"parameter of {self.ref}", name, known=own)
            if field is not None:
                _check(self.ref, field, value)
            self.arguments[name] = value

    def calls(self, n: int, seed: int) -> tuple[Call, ...]:
        """One call an image where seeds are taken, so that each can be made again by its own."""
        request, options = self.request, self.can.options
        seed_field, count_field = options.get("seed"), options.get("n")
        span = int((seed_field and seed_field.maximum) or 2**32 - 1) + 1
        explicit = None if seed_field is None else self.arguments.pop(seed_field.name, None)
        base = next(value for value in (request.seed, explicit, seed) if value is not None)
        if request.seed is not None and seed_field is None:
            self.notices.append(f"{self.ref} takes no seed: it cannot make the same image again.")
        shared = {
            "ref": self.ref,
            "prompt": request.prompt,
            "images": request.image,
            "image_field": options["image"].name if request.image else "image",
            "mask": request.mask,
            "mask_field": options["mask"].name if request.mask is not None else "mask",
        }
        if seed_field is not None:
            if base >= span:
                self.notices.append(f"{self.ref}: seed {base} became {base % span}.")
            seeds = [(base + k) % span for k in range(n)]
            return tuple(
                Call(arguments={**self.arguments, seed_field.name: value}, seed=value, **shared)
                for value in seeds
            )
        if n > 1 and count_field is not None and n <= (count_field.maximum or n):
            arguments = {**self.arguments, count_field.name: n}
            return (Call(arguments=arguments, count=n, **shared),)
        if n > 1:
            self.notices.append(f"{self.ref} makes one image a request: sent as {n} requests.")
        return tuple(Call(arguments=self.arguments, **shared) for _ in range(n))


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    """How far two ratios are apart, 1 and up, the same both ways round; 0 when equal."""
    quotient = (one[0] * other[1]) / (one[1] * other[0])
    return max(quotient, 1 / quotient) - 1


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


_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
}


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
