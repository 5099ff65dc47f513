"""What makes a model faster: how it is prepared after loading, and shortcuts for one call.

Stage: after loading, and around a call of a pipeline. Comes in: a pipeline, settings. Goes out: the same
pipeline. Must not: change a picture unasked; what does (an accelerator) is an argument of the call, so that
it is written down with the picture. docs/local.md says what each of these brings.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbimg.config import Settings
from nbimg.errors import JobFailedError, OptionError, SettingError
from nbimg.local.device import needed, quiet

__all__ = ["ACCELERATORS", "Tuning", "accelerated", "tuned"]

_tuned: weakref.WeakKeyDictionary[Any, Tuning] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a network is prepared.

    Attributes:
        attention: Name of the attention backend; None: torch's own choice.
        compiled: Whether its repeated blocks are compiled.
        channels_last: Whether its convolutions keep the channels of a pixel side by side.
    """

    attention: str | None = None
    compiled: bool = False
    channels_last: bool = False

    @classmethod
    def wanted(cls, settings: Settings, device: str, network: Any) -> Tuning:
        """Read the settings; channels-last is for networks of convolutions on a card that gains by it."""
        convolves = "UNet" in type(network).__name__
        last = settings.get("channels_last") == "on" or (
            settings.get("channels_last") == "auto" and device.startswith("cuda")
        )
        return cls(settings.get("attention") or None, settings.get("compile"), convolves and last)


def tuned(pipe: Any, settings: Settings, device: str) -> Any:
    """Prepare the network of a pipeline as the settings say, and return the pipeline.

    Cheap where nothing has changed: call it before each use.

    Args:
        pipe: The pipeline.
        settings: Of the kernel.
        device: `cpu`, `cuda` …

    Raises:
        SettingError: When an attention backend is not there, or the network takes none.
    """
    network = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    if network is None:
        return pipe
    wanted, now = Tuning.wanted(settings, device, network), _tuned.get(network, Tuning())
    if wanted.attention != now.attention:
        _attend(network, wanted.attention)
    if wanted.channels_last and not now.channels_last:
        torch, _ = needed()
        network.to(memory_format=torch.channels_last)
    if wanted.compiled != now.compiled:
        (_compile if wanted.compiled else _plain)(network)
    _tuned[network] = wanted
    return pipe


def _attend(network: Any, name: str | None) -> None:
    _, diffusers = needed()
    with quiet():
        if name is None:
            network.reset_attention_backend()
            return
        try:
            # the choice for one network becomes that of all, but for what is restored here
            with diffusers.attention_backend("native"):
                network.set_attention_backend(name)
        except Exception as error:  # of the kernels' own packages, which raise what they like
            network.reset_attention_backend()  # some parts may have it already
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise SettingError(
                f"attention = {name!r} cannot be used with {type(network).__name__}: {reason[:200]}",
                hint="Leave it empty for torch's own choice.",
            ) from None


def _compile(network: Any) -> None:
    """Compile the blocks that repeat: once for all of them, and kept on disk for the next kernel."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbimg" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home))
    if getattr(network, "_repeated_blocks", None):
        with contextlib.suppress(ValueError):  # none of its blocks is in this network
            network.compile_repeated_blocks(dynamic=None)
            return
    network.compile()


def _plain(network: Any) -> None:
    for module in network.modules():
        module._compiled_call_impl = None  # noqa: SLF001  # there is no other way back


def _first_block(diffusers: Any, value: float | None) -> Any:
    return diffusers.FirstBlockCacheConfig(threshold=0.1 if value is None else value)


def _pyramid(diffusers: Any, value: float | None) -> Any:
    every = 2 if value is None else int(value)
    return lambda pipe: diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=every,
        spatial_attention_timestep_skip_range=(100, 900),
        current_timestep_callback=lambda: pipe._current_timestep,  # noqa: SLF001  # as documented
    )


def _taylor(diffusers: Any, value: float | None) -> Any:
    return diffusers.TaylorSeerCacheConfig(cache_interval=5 if value is None else int(value))


#: Name of an accelerator → its configuration, from a number that may follow the name.
ACCELERATORS: Mapping[str, Callable[[Any, float | None], Any]] = {
    "first-block": _first_block,
    "pyramid": _pyramid,
    "taylorseer": _taylor,
}


@contextlib.contextmanager
def accelerated(pipe: Any, asked: str | None) -> Iterator[None]:
    """Have a network skip, inside, what changes little from step to step; the picture changes a little.

    Args:
        pipe: The pipeline.
        asked: `NAME` or `NAME:NUMBER`, such as `first-block:0.1`; None: nothing is skipped.

    Raises:
        OptionError: When there is no such accelerator, or the model takes none.
    """
    if not asked:
        yield
        return
    name, _, number = asked.partition(":")
    try:
        value = float(number) if number else None
        make = ACCELERATORS[name]
    except (ValueError, KeyError):
        raise OptionError(
            f"no accelerator {asked!r}.",
            allowed=list(ACCELERATORS),
            hint=f"There are {', '.join(ACCELERATORS)}; a number may follow: first-block:0.1.",
        ) from None
    network = getattr(pipe, "transformer", None)
    if network is None or not hasattr(network, "enable_cache"):
        raise OptionError(f"{type(pipe).__name__} takes no accelerator: it has no transformer.")
    _, diffusers = needed()
    config = make(diffusers, value)
    try:
        network.enable_cache(config(pipe) if callable(config) else config)
    except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        with contextlib.suppress(Exception):  # half of it may be there
            network.disable_cache()
        raise JobFailedError(
            f"accelerator {asked!r} cannot be used with {type(network).__name__}: "
            f"{str(error).splitlines()[0][:160]}",
            backend="local",
        ) from None
    try:
        yield
    finally:
        network.disable_cache()
