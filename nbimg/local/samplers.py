"""Samplers by name: `--scheduler`.

Stage: around a call of a pipeline. Comes in: a name of the field (`euler-a`, `dpm++-karras`) or of a class.
Goes out: the pipeline with that sampler, for one call. Must not: leave it there for the next one.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nbimg.errors import OptionError, closest
from nbimg.local.device import needed, quiet

__all__ = ["find_allowed", "sampled"]

#: Name → classes of which the first that fits the model is meant, and what they are told.
NAMES: Mapping[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "euler": (("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"), {}),
    "euler-a": (("EulerAncestralDiscreteScheduler",), {}),
    "dpm++": (("DPMSolverMultistepScheduler",), {"algorithm_type": "dpmsolver++"}),
    "dpm++-sde": (("DPMSolverMultistepScheduler",), {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++-2s": (("DPMSolverSinglestepScheduler",), {}),
    "unipc": (("UniPCMultistepScheduler",), {}),
    "deis": (("DEISMultistepScheduler",), {}),
    "heun": (("HeunDiscreteScheduler",), {}),
    "dpm2": (("KDPM2DiscreteScheduler",), {}),
    "dpm2-a": (("KDPM2AncestralDiscreteScheduler",), {}),
    "lms": (("LMSDiscreteScheduler",), {}),
    "ddim": (("DDIMScheduler",), {}),
    "ddpm": (("DDPMScheduler",), {}),
    "pndm": (("PNDMScheduler",), {}),
    "lcm": (("LCMScheduler", "FlowMatchLCMScheduler"), {}),
    "tcd": (("TCDScheduler",), {}),
}
#: Endings of a name → what a class is told that knows it.
ENDINGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas"}
#: What distilled models are sampled with; they take what their kin takes, although no list says so.
_DISTILLED = {"DDIMScheduler": ("LCMScheduler", "TCDScheduler"),
              "FlowMatchEulerDiscreteScheduler": ("FlowMatchLCMScheduler",)}  # fmt: skip
#: On its kin's list, but it wants a model that was trained for it.
_OTHER_MODELS = {"EDMEulerScheduler"}


@contextlib.contextmanager
def sampled(pipe: Any, name: str | None) -> Iterator[None]:
    """Give a pipeline the sampler `name` inside, and its own one back after; None: its own one.

    Raises:
        OptionError: When the name means nothing, or no sampler that the model can be used with.
    """
    if name is None:
        yield
        return
    own = pipe.scheduler
    kind, told = _found(own, type(pipe).__name__, name)
    with quiet():
        pipe.scheduler = kind.from_config(own.config, **told)
    try:
        yield
    finally:
        pipe.scheduler = own


def find_allowed(scheduler: Any) -> dict[str, Any]:
    """Return the names that a model can be used with, each with its class, by the sampler it came with."""
    classes = _classes(scheduler)
    named = {
        name: next((classes[kind] for kind in kinds if kind in classes), None)
        for name, (kinds, _) in NAMES.items()
    }
    return {name: kind for name, kind in named.items() if kind is not None}


def _classes(scheduler: Any) -> dict[str, Any]:
    """The classes that the model's own sampler can be exchanged for, by name."""
    _, diffusers = needed()
    kinds = {kind.__name__: kind for kind in [type(scheduler), *scheduler.compatibles]}
    for like, more in _DISTILLED.items():
        if like in kinds:
            kinds |= {name: getattr(diffusers, name) for name in more if hasattr(diffusers, name)}
    flows = _flows(scheduler)
    return {
        name: kind
        for name, kind in kinds.items()
        if kind is type(scheduler)
        or (
            name not in _OTHER_MODELS
            and issubclass(kind, diffusers.SchedulerMixin)  # else a package is missing
            and (not flows or "use_flow_sigmas" in inspect.signature(kind.__init__).parameters)
        )
    }


def _flows(scheduler: Any) -> bool:
    """Whether the model was trained on flows but comes with a sampler of the other family."""
    config = scheduler.config
    return bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"


def _found(scheduler: Any, model: str, asked: str) -> tuple[Any, dict[str, Any]]:
    name = re.sub(r"[\s_]+", "-", asked.strip()).lower()
    stem, _, ending = name.rpartition("-")
    switch = ENDINGS.get(ending)
    allowed, classes = find_allowed(scheduler), _classes(scheduler)
    for kind in classes.values():
        if name in (kind.__name__.lower(), kind.__name__.lower().removesuffix("scheduler")):
            return kind, {}
    base = stem if switch else name
    if base in allowed:
        kind, told = allowed[base], dict(NAMES[base][1])
        if switch is None:
            return kind, told
        if not _flows(scheduler) and switch in inspect.signature(kind.__init__).parameters:
            return kind, {**told, switch: True}
    near = closest(base, allowed)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise OptionError(
        f"{model} with a {type(scheduler).__name__} has no scheduler {asked!r}.",
        allowed=list(allowed),
        hint=f"{hint}It has: {', '.join(allowed)}.",
    )
