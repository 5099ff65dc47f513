"""Fit a request to a model: what is sent, what was translated or dropped, and the price.

Stage: between expansion and the engine. Comes in: a `Request`, a model, what the model takes. Goes
out: a `Planned`, small enough to have 50,000 of, which makes its `Call`s when they are asked for. Pure:
no network, no clock, no random numbers (the seed is handed in). Must not: name a provider.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

from nbimg.backends.base import Call
from nbimg.planning.fit import Fit, Origin
from nbimg.types import Capabilities, ModelRef, Request

__all__ = ["Origin", "Planned", "lacks", "plan"]

_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Planned:
    """A task that is ready to run.

    Attributes:
        index: 0-based place in its batch.
        request: What was asked.
        ref: The model that will be used.
        can: What it takes.
        seed: The base seed where the request names none.
        notices: What was translated, dropped or replaced, and why.
        chain: The models that the call named for when this one fails; empty: none; None: the rules
            decide.
        origin: The model that this one stands in for; None: it is the one that was chosen first.
    """

    index: int
    request: Request
    ref: ModelRef
    can: Capabilities
    seed: int
    notices: tuple[str, ...] = ()
    chain: tuple[str, ...] | None = None
    origin: Origin | None = None

    @property
    def asked(self) -> str | None:
        """What the user named, when anything."""
        return self.request.model

    @property
    def number(self) -> int:
        """How many calls it takes."""
        return _number(self.can, self.request.n)

    @property
    def cost_usd(self) -> float | None:
        """Of all its images; None where the price is unknown."""
        price = self.can.price_usd
        return None if price is None else price * self.request.n

    def calls(self) -> tuple[Call, ...]:
        """Return what is sent, variants in order; made anew each time."""
        fit = Fit(self.request, self.ref, self.can, self.origin)
        fit.fill()
        return _calls(fit, self.seed)

    def part(self, variant: int) -> Planned:
        """Return the task as if the one call `variant` were all of it, with the seed of that call."""
        if self.number == 1:
            return self
        request, seed = self.request, self.calls()[variant].seed
        if seed is None:
            seed = ((self.seed if request.seed is None else request.seed) + variant) % _SEEDS
        # a seed among the params is a base as well: only one in the request itself goes before it
        named = request.seed is not None or bool(request.params)
        return replace(self, seed=seed, request=request.but(n=1, seed=seed if named else None))


def plan(
    index: int,
    request: Request,
    ref: ModelRef,
    can: Capabilities,
    *,
    seed: int,
    chain: tuple[str, ...] | None = None,
    origin: Origin | None = None,
    notices: tuple[str, ...] = (),
) -> Planned:
    """Fit `request` to a model; whatever can be refused is refused here.

    Args:
        index: Place of the task in its batch.
        request: What is asked; images are `InputImage`s.
        ref: The model.
        can: What it takes.
        seed: The base seed when the request names none and the model takes seeds.
        chain: The models to go on with, when the call names any.
        origin: The model that this one stands in for.
        notices: What happened before.

    Raises:
        InputError: When the model cannot do what is essential: an image it does not take, an image
            it needs, a parameter of `params` that it does not have or does not allow.
    """
    fit = Fit(request, ref, can, origin)
    fit.check()
    fit.fill()
    _calls(fit, seed)
    said = _shared((*notices, *fit.notices))
    return Planned(index, request, ref, can, seed, said, chain, origin)


def lacks(request: Request, can: Capabilities) -> str | None:
    """Return the condition of a fallback rule: what is essential to `request` and the model lacks.

    `reference_image`: it takes no input image, or too few. `parameter`: it takes no mask. A model that
    does not tell what it takes lacks nothing that is known.
    """
    if can.open:
        return None
    if len(request.image) > can.max_images:
        return "reference_image"
    return "parameter" if request.mask is not None and "mask" not in can.options else None


def _number(can: Capabilities, n: int) -> int:
    """One call an image where seeds are taken, so that each can be made again by its own."""
    count = can.options.get("n")
    together = "seed" not in can.options and count is not None and n <= (count.maximum or n)
    return 1 if together else n


def _calls(fit: Fit, drawn: int) -> tuple[Call, ...]:
    """The calls of a task that was fitted; a notice where a seed or the count changed on the way."""
    request, options, ref = fit.request, fit.can.options, fit.ref
    seed_field, n = options.get("seed"), request.n
    span = int((seed_field and seed_field.maximum) or _SEEDS - 1) + 1
    explicit = None if seed_field is None else fit.arguments.pop(seed_field.name, None)
    base = next(value for value in (request.seed, explicit, drawn) if value is not None)
    if request.seed is not None and seed_field is None:
        fit.notices.append(f"{ref} takes no seed: it cannot make the same image again.")
    shared: dict[str, Any] = {
        "ref": ref,
        "prompt": request.prompt,
        "images": request.image,
        "image_field": options["image"].name if request.image else "image",
        "mask": request.mask,
        "mask_field": options["mask"].name if request.mask is not None else "mask",
    }
    if seed_field is not None and _steadied(fit):
        if base >= span:
            fit.notices.append(f"{ref}: seed {base} became {base % span}.")
        # most are the request's own number, not one more of it: a batch may have 50,000
        first = base if base < span else base % span
        seeds = [first, *((first + k) % span for k in range(1, n))]
        return tuple(
            Call(arguments={**fit.arguments, seed_field.name: seed}, seed=seed, **shared)
            for seed in seeds
        )
    number = _number(fit.can, n)
    if number < n:
        return (Call(arguments={**fit.arguments, options["n"].name: n}, count=n, **shared),)
    if n > 1:
        fit.notices.append(f"{ref} makes one image a request: sent as {n} requests.")
    return tuple(Call(arguments=fit.arguments, **shared) for _ in range(n))


def _steadied(fit: Fit) -> bool:
    """Set what a seed needs to take effect; False where the user wants it otherwise."""
    for name, value in fit.can.steady.items():
        if fit.arguments.setdefault(name, value) != value:
            fit.notices.append(
                f"{fit.ref}: with {name} {_said(fit.arguments[name])} no seed takes effect: it cannot make "
                "the same image again."
            )
            return False
        if name not in fit.request.params:
            fit.notices.append(
                f"{fit.ref}: {name} is {_said(value)}, so that the seed takes effect."
            )
    return True


def _said(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "on" if value else "off"


@functools.lru_cache(maxsize=256)
def _shared(notices: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all tasks of a batch that have the same notices."""
    return notices
