"""The notebook's own machine: diffusers pipelines, and the one that ships with nbimg.

Stage: a local backend. Comes in: calls that can share a call of a pipeline. Goes out: images, as each
micro-batch ends. One worker thread does all loading and running: two cells never run one pipeline at
once. Must not: import torch before a model is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from nbimg.backends.base import Call, Context, LocalBackend
from nbimg.events import Event, Notice
from nbimg.local import batch, manifest
from nbimg.local.manifest import Manifest
from nbimg.local.pipelines import Pipelines, best_device, installed, needed
from nbimg.types import Capabilities, EncodedImage, Field, Size

__all__ = ["DemoBackend", "DiffusersBackend"]

_worker = ThreadPoolExecutor(1, thread_name_prefix="nbimg-local")
_pipelines = Pipelines()

_STEPS = Field("num_inference_steps", "integer", minimum=1, maximum=200)
_GUIDANCE = Field("guidance_scale", "number", minimum=0, maximum=30)
_SEED = Field("seed", "integer", minimum=0, maximum=2**32 - 1)


class DiffusersBackend(LocalBackend):
    """`local:FOLDER`: a folder that `DiffusionPipeline.from_pretrained` can load."""

    name = "local"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._manifests: dict[str, Manifest] = {}

    def manifest(self, model: str) -> Manifest:
        """Read what the model's folder says about itself, once."""
        if model not in self._manifests:
            self._manifests[model] = manifest.read(manifest.find_folder(model))
        return self._manifests[model]

    async def capabilities(self, model: str) -> Capabilities:
        """Return what the pipeline's class and the folder's own file say."""
        card = self.manifest(model)
        taken = await asyncio.get_running_loop().run_in_executor(_worker, _parameters, card)
        options = {"seed": _SEED}
        if "num_inference_steps" in taken:
            options["steps"] = _STEPS
        if "guidance_scale" in taken:
            options["guidance"] = _GUIDANCE
        if "negative_prompt" in taken:
            options["negative"] = Field("negative_prompt")
        if "strength" in taken:
            options["strength"] = Field("strength", "number", minimum=0, maximum=1)
        makes = "generate" in card.tasks if card.tasks else "image" not in taken
        if "image" in taken:
            options["image"] = Field("image", "file", required=not makes)
        if card.size_px is None and {"width", "height"} <= taken:
            for side in ("width", "height"):
                options[side] = Field(side, "integer", minimum=64, maximum=8192, multiple=16)
        known = {field.name for field in options.values()} | _OURS
        return Capabilities(
            options=options,
            extra={name: Field(name, "any") for name in sorted(taken - known)},
            default_size=Size(*card.size_px) if card.size_px else None,
            makes=makes,
            price_usd=0.0,
            vocabulary=card.vocabulary,
            about_vocabulary=card.about_vocabulary,
        )

    def share_key(self, call: Call) -> Hashable:
        """Calls share a call of the pipeline when only prompt, image and seed differ."""
        arguments = {name: value for name, value in call.arguments.items() if name != "seed"}
        return (call.ref.model, bool(call.images), repr(sorted(arguments.items())))

    async def generate(
        self, calls: Sequence[Call], report: Callable[[int, Event], None]
    ) -> AsyncIterator[tuple[int, EncodedImage]]:
        """Make the images on the worker thread, and hand each over as it is ready."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[tuple[int, EncodedImage] | None] = asyncio.Queue()
        stop = threading.Event()

        def tell(position: int, event: Event) -> None:
            loop.call_soon_threadsafe(report, position, event)

        def work() -> None:
            try:
                with contextlib.suppress(batch.StoppedError):
                    for item in self._made(calls, tell, stop):
                        loop.call_soon_threadsafe(ready.put_nowait, item)
            finally:
                loop.call_soon_threadsafe(ready.put_nowait, None)

        working = loop.run_in_executor(_worker, work)
        try:
            while (item := await ready.get()) is not None:
                yield item
            await working
        finally:
            stop.set()

    def _made(
        self, calls: Sequence[Call], report: Callable[[int, Event], None], stop: threading.Event
    ) -> Any:
        task = "edit" if calls[0].images else "generate"
        card = self.manifest(calls[0].ref.model)
        if not _pipelines.has(card):
            report(0, Notice(text=f"loading {calls[0].ref} …"))
        settings = self.context.settings
        device = settings.get("device") or best_device()
        pipe = _pipelines.get(card, task, device, settings.get("dtype"))
        defaults = card.tasks.get(task, {})
        return batch.run(pipe, calls, defaults, card.size_px, report, stop)


class DemoBackend(DiffusersBackend):
    """`demo`: the model that ships with nbimg, loaded by the same code as any other folder."""

    name = "demo"

    def manifest(self, model: str) -> Manifest:  # noqa: ARG002  # it has only one
        """Read the card of the model in the package."""
        return super().manifest(str(demo_folder()))


def demo_folder() -> Path:
    """Return where the weights that ship with nbimg are."""
    return Path(str(resources.files("nbimg.local").joinpath("demo", "weights")))


#: Arguments of a pipeline's call that nbimg itself sets.
_OURS = frozenset(
    [
        "self",
        "prompt",
        "image",
        "generator",
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "num_images_per_prompt",
        "output_type",
        "return_dict",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
        "kwargs",
        "args",
    ]
)


def _parameters(card: Manifest) -> frozenset[str]:
    """Names that the call of a pipeline's class takes; the model that ships needs no import for it."""
    installed()
    if card.tasks and card.slice_conv_in:
        needed_if_run = {"num_inference_steps", "guidance_scale", "negative_prompt", "image"}
        return frozenset(needed_if_run | {"image_guidance_scale"})
    import inspect

    _, diffusers = needed()
    kind = getattr(diffusers, card.pipeline, None)
    return frozenset(inspect.signature(kind.__call__).parameters) if kind else frozenset()
