"""Latents to colours, by the cheapest way there is.

Stage: below the previews. Comes in: latents as a pipeline's loop has them. Goes out: rough colours. Must
not: download anything, or move a part of a model that is kept off the card.

A tiny decoder is the best way, where the model has one; else one matrix from channels to colours, which
is learned once from the model's own encoder.
"""

from __future__ import annotations

import contextlib
import json
import math
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbimg.local.device import needed, quiet

__all__ = ["Decoder", "find_decoder"]

#: Pipelines whose latents a tiny decoder of the hub reads (TAESD, https://github.com/madebyollin/taesd,
#: read 2026-11-22); it is used where it is on this machine already.
TINY = (
    ("StableDiffusionXL", "madebyollin/taesdxl"),
    ("StableDiffusion3", "madebyollin/taesd3"),
    ("StableDiffusion", "madebyollin/taesd"),
    ("Flux2", None),
    ("Flux", "madebyollin/taef1"),
)

#: Longest side of what a matrix makes, in pixels: it is grown to about this.
GROWN_PX = 128

_decoders: weakref.WeakKeyDictionary[Any, Decoder] = weakref.WeakKeyDictionary()


class Decoder:
    """Turns latents into colours, and knows how long an image takes.

    Args:
        decode: Latents of shape (images, channels, height, width), as the pipeline has them → colours of
            shape (images, 3, height, width), about 0 to 1.
    """

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self._decode = decode
        self._warm = False
        self.seconds_each: float | None = None

    def __call__(self, pipe: Any, latents: Any, ratio: float) -> Any:
        """Return the colours of latents, packed or not, of images with that ratio of width to height."""
        return self._decode(_unpacked(pipe, latents, ratio))

    def took(self, seconds_each: float) -> None:
        """Remember how long an image takes; the first one says little, since it warms up."""
        known = self.seconds_each if self._warm else None
        self._warm = self.seconds_each is not None
        self.seconds_each = seconds_each if known is None else 0.5 * (known + seconds_each)


def _unpacked(pipe: Any, latents: Any, ratio: float) -> Any:
    """Return latents as (images, channels, height, width), as the decoder wants them."""
    if latents.ndim == 3:
        wide, high = _grid(latents.shape[1], ratio)
        if hasattr(pipe, "_unpack_latents"):
            patch = 2 * pipe.vae_scale_factor
            latents = pipe._unpack_latents(latents, high * patch, wide * patch, patch // 2)  # noqa: SLF001
        else:
            latents = latents.mT.unflatten(2, (high, wide))
    if latents.ndim == 5:  # a video of one picture
        latents = latents[:, :, 0]
    return latents


def _plain(vae: Any, latents: Any) -> Any:
    """Undo what a pipeline does to the latents of its encoder, by the model's own numbers."""
    config: Mapping[str, Any] = vae.config
    if hasattr(vae, "bn"):  # blocks of 2 x 2 pixels, each channel brought to one scale
        torch, _ = needed()
        spread = (vae.bn.running_var + config["batch_norm_eps"]).sqrt()
        whole = latents * _by_channel(spread, latents) + _by_channel(vae.bn.running_mean, latents)
        return torch.nn.functional.pixel_shuffle(whole, 2)
    if config.get("latents_mean") and config.get("latents_std"):
        spread = _by_channel(config["latents_std"], latents)
        return latents * spread + _by_channel(config["latents_mean"], latents)
    return latents / (config.get("scaling_factor") or 1.0) + (config.get("shift_factor") or 0.0)


def _by_channel(values: Any, like: Any) -> Any:
    torch, _ = needed()
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def _grid(count: int, ratio: float) -> tuple[int, int]:
    """Return the width and height, in patches, of `count` patches whose shape is nearest to `ratio`.

    >>> _grid(24, 1.5)
    (6, 4)
    """
    pairs = [(count // high, high) for high in range(1, count + 1) if count % high == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1] / ratio)))


def find_decoder(pipe: Any) -> Decoder:
    """The decoder of a pipeline's latents, made once for each encoder."""
    if pipe.vae not in _decoders:
        with quiet():
            tiny = _tiny(pipe)
        _decoders[pipe.vae] = Decoder(_by_tiny(tiny) if tiny else _by_matrix(pipe.vae))
    return _decoders[pipe.vae]


def _tiny(pipe: Any) -> Any:
    """A tiny decoder: the model's own, one in its folder, or one of the hub that is here already."""
    _, diffusers = needed()
    kind = diffusers.AutoencoderTiny
    if isinstance(pipe.vae, kind):
        return pipe.vae
    first = next(pipe.vae.parameters())
    name = type(pipe).__name__
    known = next((tiny for start, tiny in TINY if name.startswith(start)), None)
    for place in [*_beside(pipe), *([known] if known else [])]:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            tiny = kind.from_pretrained(place, local_files_only=True, use_safetensors=True)
            if tiny.config.latent_channels == pipe.vae.config.get("latent_channels"):
                return tiny.to(first.device, first.dtype)
    return None


def _beside(pipe: Any) -> list[str]:
    """Folders beside the model's parts that hold a tiny decoder."""
    place = str(getattr(pipe, "name_or_path", "") or pipe.config.get("_name_or_path") or "")
    found: list[str] = []
    if not place or not Path(place).is_dir():
        return found
    for path in sorted(Path(place).glob("*/config.json")):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text("utf-8")).get("_class_name") == "AutoencoderTiny":
                found.append(str(path.parent))
    return found


def _by_tiny(tiny: Any) -> Callable[[Any], Any]:
    def decode(latents: Any) -> Any:
        own = next(tiny.parameters())
        if own.device.type != "meta" and not hasattr(tiny, "_hf_hook"):
            tiny.to(latents.device)  # the model's parts may wait in main memory; this one is small
        plain = _plain(tiny, latents.to(own.dtype))
        return tiny.decode(plain).sample / 2 + 0.5

    return decode


def _by_matrix(vae: Any) -> Callable[[Any], Any]:
    torch, _ = needed()
    matrix = (
        None if hasattr(vae, "_hf_hook") else _learned(vae)
    )  # an offloaded one stays where it is

    def decode(latents: Any) -> Any:
        rows = _plain(vae, latents.float()).movedim(1, -1)
        if matrix is None:
            grey = rows.mean(-1, keepdim=True)
            low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
            colours = ((grey - low) / (high - low).clamp(min=1e-6)).expand(*grey.shape[:3], 3)
        else:
            colours = rows @ matrix[:-1] + matrix[-1]
        small = colours.movedim(-1, 1)
        factor = max(1, GROWN_PX // max(small.shape[-2:]))
        return torch.nn.functional.interpolate(small, scale_factor=factor, mode="bilinear")

    return decode


def _learned(vae: Any) -> Any:
    """Return the matrix (channels + 1, 3) by which latents come nearest to the colours they stand for.

    Fitted by least squares to a picture of soft blots, which the model's encoder turns into latents.
    """
    torch, _ = needed()
    own = next(vae.parameters())
    blots = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(blots, size=(128, 128), mode="bicubic").clamp(0, 1)
    given = (picture * 2 - 1).to(own.device, own.dtype)
    video = "temperal_downsample" in vae.config  # sic: encoders of videos take frames
    with torch.no_grad():
        out = vae.encode(given.unsqueeze(2) if video else given)
    latents = out.latent_dist.mode() if hasattr(out, "latent_dist") else out[0]
    latents = (latents[:, :, 0] if latents.ndim == 5 else latents).float().cpu()
    small = torch.nn.functional.interpolate(picture, size=latents.shape[-2:], mode="area")
    rows = latents.movedim(1, -1).flatten(0, 2)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
    square = rows.T @ rows
    square += 1e-3 * square.diagonal().mean() * torch.eye(len(square))
    found = torch.linalg.solve(square, rows.T @ small.movedim(1, -1).flatten(0, 2))
    return found.to(own.device) if found.isfinite().all() else None  # half precision may overflow
