"""What a local model takes: read from the classes that can be made of its parts.

Stage: before planning. Comes in: a model's card. Goes out: its capabilities. Must not: load weights, or
import diffusers for the model that ships.
"""

from __future__ import annotations

import inspect

from nbimg.local.adapters import FIELDS
from nbimg.local.device import installed, needed
from nbimg.local.families import Task, class_for, family_of, guidance_argument, tasks_of
from nbimg.local.manifest import Manifest
from nbimg.types import Capabilities, Field, Size

__all__ = ["read_capabilities"]

_STEPS = Field("num_inference_steps", "integer", minimum=1, maximum=200)
_SEED = Field("seed", "integer", minimum=0, maximum=2**32 - 1)
_STRENGTH = Field("strength", "number", minimum=0, maximum=1)
#: Arguments of a pipeline's call that nbimg itself sets.
_OURS = frozenset(
    [
        "self",
        "prompt",
        "image",
        "mask_image",
        "generator",
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "num_images_per_prompt",
        "output_type",
        "return_dict",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
        "max_area",
        "_auto_resize",
        "kwargs",
        "args",
    ]
)


def read_capabilities(card: Manifest) -> Capabilities:
    """Return what the classes that share the model's components take, together.

    Args:
        card: The model; its weights need not be on this machine.

    Raises:
        DependencyMissingError: When diffusers is not installed.
    """
    taken = _parameters(card)
    tasks = tasks_of(card.pipeline, taken) | {str(name) for name in card.tasks}
    if card.tasks:
        tasks &= set(card.tasks)
    family = family_of(card.pipeline)
    options = {"seed": _SEED}
    if "num_inference_steps" in taken:
        options["steps"] = _STEPS
    guidance = guidance_argument(card.pipeline, taken, distilled=card.distilled)
    if guidance is not None and card.guided:
        options["guidance"] = Field(guidance, "number", minimum=0, maximum=30)
    if "negative_prompt" in taken:
        options["negative"] = Field("negative_prompt")
    makes = "generate" in tasks
    edits = bool(tasks & {"edit", "combine", "inpaint"})
    if edits:
        several = "combine" in tasks
        kind = "files" if several else "file"
        options["image"] = Field(family.image, kind, required=not makes)
    if edits and "strength" in taken:
        options["strength"] = _STRENGTH
    if "inpaint" in tasks:
        options["mask"] = Field("mask_image", "file")
    if card.size_px is None and ({"width", "height"} <= taken or edits):
        for side in ("width", "height"):
            options[side] = Field(side, "integer", minimum=64, maximum=8192, multiple=16)
    options |= {name: FIELDS[name] for name in ("scheduler", "lora")}
    known = {field.name for field in options.values()} | _OURS | {str(guidance)}
    return Capabilities(
        options=options,
        extra={
            "accelerator": FIELDS["accelerator"],
            **{name: Field(name, "any") for name in sorted(taken - known)},
        },
        default_size=Size(*card.size_px) if card.size_px else None,
        composes="combine" in tasks,
        makes=makes,
        price_usd=0.0,
        vocabulary=card.vocabulary,
        about_vocabulary=card.about_vocabulary,
    )


def _parameters(card: Manifest) -> frozenset[str]:
    """Names that the calls of the classes take; the model that ships needs no import for it."""
    installed()
    if card.tasks and card.slice_conv_in:
        needed_if_run = {"num_inference_steps", "guidance_scale", "negative_prompt", "image"}
        return frozenset(needed_if_run | {"image_guidance_scale"})
    _, diffusers = needed()
    every: tuple[Task, ...] = ("generate", "edit", "combine", "inpaint")
    names = {card.pipeline, *(class_for(card.pipeline, task) for task in every)}
    kinds = [kind for name in names if name and (kind := getattr(diffusers, name, None))]
    return frozenset(
        parameter for kind in kinds for parameter in inspect.signature(kind.__call__).parameters
    )
