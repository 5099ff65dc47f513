"""Diffusers pipelines, loaded once and kept.

Stage: below the local backend. Comes in: a folder, a task, a device. Goes out: a pipeline that is
ready to be called. The only place that loads weights. Must not: load anything but safetensors, run
code from a model's folder, or ask a network. Everything here runs on the backend's one worker thread.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbimg.errors import DependencyMissingError, JobFailedError, SetupError
from nbimg.local.manifest import Manifest

if TYPE_CHECKING:
    import torch

__all__ = ["Pipelines", "best_device", "installed", "needed", "quiet"]


def needed() -> tuple[Any, Any]:
    """Import torch and diffusers.

    Raises:
        DependencyMissingError: When one is not installed.
    """
    installed()
    return importlib.import_module("torch"), importlib.import_module("diffusers")


def installed() -> None:
    """Look for torch and diffusers without importing them, which takes seconds.

    Raises:
        DependencyMissingError: When one is not installed.
    """
    for name in ("torch", "diffusers", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise DependencyMissingError(
                f"models on this machine need {name}, which is not installed.",
                hint="pip install 'nbimg[local]'",
            )


def best_device() -> str:
    """Return `cuda`, `mps` or `cpu`."""
    torch, _ = needed()
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


class Pipelines:
    """The pipelines of a kernel by folder, task, device and number format."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[Path, str, str], Any] = {}

    def has(self, manifest: Manifest) -> bool:
        """Whether the weights of a model are loaded."""
        folder = manifest.folder.resolve()
        return any(key[0] == folder for key in self._loaded)

    def get(self, manifest: Manifest, task: str, device: str, dtype: str | None) -> Any:
        """Return the pipeline of a model for a task; the weights are loaded once for all its tasks.

        Args:
            manifest: The model.
            task: `generate` or `edit`.
            device: `cpu`, `cuda` …
            dtype: `float32`, `bfloat16`, `float16`; None: float32 on a CPU, else bfloat16.

        Raises:
            JobFailedError: When it cannot be loaded, or does not do the task.
        """
        torch, _ = needed()
        number = getattr(torch, dtype or ("float32" if device == "cpu" else "bfloat16"))
        key = (manifest.folder.resolve(), device, str(number))
        if key not in self._loaded:
            self._loaded[key] = _load(manifest, device, number)
        pipe = self._loaded[key]
        if task == "generate" and manifest.slice_conv_in:
            made = (*key[:2], f"{key[2]} generate")
            if made not in self._loaded:
                self._loaded[made] = _sliced(pipe)
            return self._loaded[made]
        return pipe


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the libraries say while they load out of the notebook, errors excepted."""
    names = ("diffusers", "transformers")
    for name in names:  # each sets its own level when it is first imported
        importlib.import_module(f"{name}.utils.logging")
    levels = {name: logging.getLogger(name).level for name in names}
    bars = [
        module
        for name in (f"{package}.utils.logging" for package in names)
        if (module := sys.modules.get(name)) is not None and module.is_progress_bar_enabled()
    ]
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        for module in bars:
            module.disable_progress_bar()
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for module in bars:
            module.enable_progress_bar()


def _load(manifest: Manifest, device: str, dtype: torch.dtype) -> Any:
    _, diffusers = needed()
    with quiet():
        kind = getattr(diffusers, manifest.pipeline, None)
    if kind is None:
        raise SetupError(
            f"{manifest.folder} wants {manifest.pipeline!r}, which this diffusers does not have.",
            hint="pip install -U diffusers",
        )
    major, minor = (int(part) for part in diffusers.__version__.split(".")[:2])
    number = {"dtype" if (major, minor) >= (0, 42) else "torch_dtype": dtype}
    try:
        with quiet():
            pipe = kind.from_pretrained(
                manifest.folder, use_safetensors=True, local_files_only=True, **number
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise JobFailedError(
            f"{manifest.folder} cannot be loaded: {str(error).splitlines()[0]}", backend="local"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


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
    with quiet():
        made = _made(diffusers, pipe, slim)
    made.set_progress_bar_config(disable=True)
    return made


def _made(diffusers: Any, pipe: Any, slim: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=pipe.vae,
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=slim.eval(),
        scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
