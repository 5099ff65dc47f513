"""Load a diffusers pipeline from a folder, and derive from it those that share its weights.

Stage: below the cache of pipelines, on the worker thread. Comes in: a model's card. Goes out: a pipeline.
Must not: load anything but safetensors, run code from a model's folder, ask a network, or keep anything.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

from nbimg.errors import JobFailedError, NbimgError, SetupError
from nbimg.local import families, folder, shelf
from nbimg.local.device import Device, needed, quiet
from nbimg.local.families import Task
from nbimg.local.manifest import Manifest
from nbimg.local.memory import first_line, forget, out_of_memory

__all__ = ["Tell", "derive", "load", "move"]

Tell = Callable[[str], None]


def load(card: Manifest, number: str, tell: Tell) -> Any:
    """Load a pipeline into main memory; what is half loaded when that fails is let go.

    Args:
        card: The model.
        number: The number format of its weights.
        tell: Told in words how far it is.

    Raises:
        SetupError: When its folder is not whole, is pickled or carries code, or when this diffusers
            does not have its class.
        JobFailedError: When it cannot be loaded.
    """
    folder.check(card.folder, card.name)
    torch, diffusers = needed()
    with quiet():
        kind: Any = getattr(diffusers, card.pipeline, None)
    if kind is None:
        raise SetupError(
            f"{card.name} wants {card.pipeline!r}, which this diffusers does not have.",
            hint="pip install -U diffusers",
        )
    if diffusers.DiffusionPipeline not in getattr(kind, "__mro__", ()):
        raise SetupError(f"{card.name} wants {card.pipeline!r}, which is no pipeline.")
    major, minor = (int(part) for part in diffusers.__version__.split(".")[:2])
    options: dict[str, Any] = {
        "dtype" if (major, minor) >= (0, 42) else "torch_dtype": getattr(torch, number),
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    if (word := shelf.variant(card.folder)) is not None:
        options["variant"] = word
    failure: NbimgError | None = None
    try:
        with quiet(), _parts_told(card.name, tell):
            pipe = kind.from_pretrained(card.folder, **options)
            pipe.set_progress_bar_config(disable=True)
    except Exception as error:  # the libraries below raise anything on files that do not fit
        failure = _unloadable(card, error)
        forget(error)
    if failure is not None:  # raised where no frame holds a part of it
        raise failure
    return pipe


def move(card: Manifest, pipe: Any, device: Device) -> bool:
    """Move a pipeline to its device.

    Returns:
        False where it does not fit: then all of it is in main memory again.

    Raises:
        JobFailedError: When it fails otherwise.
    """
    failure: NbimgError | None = None
    try:
        with quiet():  # it warns of half precision on a processor, which somebody has asked for
            pipe.to(device.name)
    except (RuntimeError, ValueError, AssertionError) as error:
        failure, full = _unloadable(card, error), out_of_memory(error)
        forget(error)
    if failure is None:
        return True
    if full:
        pipe.to("cpu", silence_dtype_warnings=True)
    pipe = None
    device.release()
    if full:
        return False
    raise failure


def _unloadable(card: Manifest, error: Exception) -> NbimgError:
    line = first_line(error)
    hint = "%imgmodels --unload all makes room." if out_of_memory(error) else None
    return JobFailedError(f"{card.name} cannot be loaded: {line}", backend="local", hint=hint)


@contextlib.contextmanager
def _parts_told(name: str, tell: Tell) -> Iterator[None]:
    """Tell how many parts are loaded; diffusers counts them with a progress bar of its own."""
    from diffusers.utils import logging as bars

    def counted(parts: Any = (), **_: Any) -> Any:
        listed = list(parts)
        for number, part in enumerate(listed):
            tell(f"loading {name}: part {number + 1} of {len(listed)} …")
            yield part

    kept, here = bars.tqdm, threading.get_ident()
    bars.tqdm = lambda *args, **known: (
        counted(*args, **known)
        if threading.get_ident() == here and "components" in str(known.get("desc"))
        else kept(*args, **known)
    )
    try:
        yield
    finally:
        bars.tqdm = kept


def derive(card: Manifest, base: Any, task: Task) -> Any:
    """Return the pipeline for a task that shares every weight with the one that was loaded.

    Raises:
        JobFailedError: When no class does the task with these parts.
    """
    if task == "generate" and card.slice_conv_in:
        return _sliced(base)
    name = families.class_for(type(base).__name__, task)
    _, diffusers = needed()
    with quiet():
        kind = getattr(diffusers, name or "", None)
    if kind is None:
        raise JobFailedError(f"{card.name} cannot {task} images.", backend="local")
    if type(base) is kind:
        return base
    taken = inspect.signature(kind.__init__).parameters
    parts = {part: value for part, value in base.components.items() if part in taken}
    options = {
        option: value
        for option, value in base.config.items()
        if option in taken and option not in base.components
    }
    return _made(kind, base, **{**options, **parts})


def _sliced(pipe: Any) -> Any:
    """Derive the text-to-image pipeline of a model that was trained to edit and to make.

    An InstructPix2Pix network takes noise and source latents side by side. One that was also trained
    with a source of zeros makes pictures from text alone, and then the weights of the source channels
    meet zeros only: leaving them out is exact. All other weights are shared, not copied.
    """
    torch, diffusers = needed()
    unet, half = pipe.unet, pipe.vae.config.latent_channels
    config = {**unet.config, "in_channels": half}
    with torch.device("meta"):
        slim = diffusers.UNet2DConditionModel.from_config(config)
    weights = dict(unet.state_dict())
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :half].clone()
    slim.load_state_dict(weights, assign=True)
    return _made(
        diffusers.StableDiffusionPipeline,
        pipe,
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=slim.eval(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _made(kind: Any, base: Any, **parts: Any) -> Any:
    """Put a pipeline together, with a scheduler of its own: schedulers keep the state of a call.

    `from_pipe` would cast the shared weights to float32 (diffusers issue 12754, read 2026-11-22).
    """
    scheduler = type(base.scheduler).from_config(base.scheduler.config)
    with quiet():
        made = kind(**{**parts, "scheduler": scheduler})
    made.set_progress_bar_config(disable=True)
    return made
