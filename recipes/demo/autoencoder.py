"""Pixels ↔ latents: an `AutoencoderTiny` that makes a 192-px picture 12 x 12 x 16 numbers.

Two stages. ``whole`` trains encoder and decoder; at its end the latents are brought to mean 0 and
deviation 1 exactly, inside the encoder's last convolution, since the edit pipeline does not scale
image latents. ``decoder`` goes on with a frozen encoder: the latents stay what the denoiser
learned, the pictures get sharper. Loss: absolute error of levels and of their differences between
neighbours (edges).
"""

import copy
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from recipes.demo import checkpoint, loop
from recipes.demo.drawing import SIZE_PX, draw
from recipes.demo.optimiser import Optimiser
from recipes.demo.scenes import sample_training

LATENT_CHANNELS = 16
WIDTH = 32
NOISE = 0.08  # deviation added to latents: the decoder forgives the denoiser's small errors
RATES = {"whole": 2.5e-3, "decoder": 1e-3}


def build() -> AutoencoderTiny:
    """Return the untrained autoencoder: five stages, so one latent for 16 x 16 pixels."""
    model = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 5,
        decoder_block_out_channels=(WIDTH,) * 5,
        num_encoder_blocks=(0, 0, 1, 3, 4),
        num_decoder_blocks=(5, 4, 2, 0, 0),
        latent_channels=LATENT_CHANNELS,
    )
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            # Without normalisation layers the usual small start would let signals die out.
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    for layer in model.modules():
        if isinstance(layer, AutoencoderTinyBlock):
            layer.conv[-1].weight.data *= 0.1
    model.decoder.layers[-1].weight.data *= 0.1
    model.decoder.layers[-1].bias.data += 0.5
    return model


def pictures(rng: random.Random, number: int, crop_px: int = SIZE_PX, crops: int = 1) -> Tensor:
    """Draw training pictures.

    Args:
        rng: Chooses scenes, seeds and crops.
        number: How many pictures (or crops) to return; a multiple of `crops`.
        crop_px: Side of the squares cut from each picture.
        crops: Squares cut from one picture.

    Returns:
        Levels -1..1, shape (number, 3, crop_px, crop_px).
    """
    out = np.empty((number, crop_px, crop_px, 3), np.uint8)
    for index in range(number):
        if index % crops == 0:
            pixels = np.asarray(draw(sample_training(rng), rng.getrandbits(32)))
        x, y = (rng.randint(0, SIZE_PX - crop_px) for _ in "xy")
        out[index] = pixels[y : y + crop_px, x : x + crop_px]
    return levels_of(out)


def levels_of(pixels: NDArray[np.uint8]) -> Tensor:
    """Return levels -1..1, shape (n, 3, height, width), of pixels (n, height, width, 3)."""
    levels: Tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return levels


def loss_of(made: Tensor, wanted: Tensor) -> Tensor:
    """Return the picture loss: error of levels, of edges, and of 4-px means (colour)."""
    error = made - wanted
    levels = error.abs().mean() + error.square().mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    loss: Tensor = levels + 0.7 * edges + functional.avg_pool2d(error, 4).abs().mean()
    return loss


def _spread_loss(latents: Tensor) -> Tensor:
    means, deviations = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    loss: Tensor = means.square().mean() + (deviations - 1).square().mean()
    return loss


def normalise(model: AutoencoderTiny, rng: random.Random, rounds: int = 24) -> None:
    """Bring the latents to mean 0 and deviation 1 by changing the encoder's last convolution."""
    with torch.no_grad():
        latents = torch.cat([model.encoder(pictures(rng, 32)) for _ in range(rounds)])
        means, deviations = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        last = model.encoder.layers[-1]
        first = model.decoder.layers[0]
        # The decoder's first convolution undoes the change, up to its clamp, which is wide.
        first.bias += (first.weight.sum((2, 3)) * means).sum(1)
        first.weight *= deviations[None, :, None, None]
        last.bias.copy_((last.bias - means) / deviations)
        last.weight /= deviations[:, None, None, None]


def psnr(model: AutoencoderTiny, number: int = 64) -> float:
    """Return the peak signal-to-noise ratio in dB on `number` fixed pictures."""
    wanted = pictures(random.Random(7), number)
    with torch.no_grad():
        made = torch.cat([model.decoder(model.encoder(part)) for part in wanted.split(16)])
    return float(-10 * ((made.clamp(-1, 1) - wanted).square().mean() / 4).log10())


def train(
    path: Path, minutes: float, stage: str, *, crop_px: int = SIZE_PX, batch: int = 8
) -> None:
    """Train for some minutes, from the checkpoint at `path` if there is one.

    Args:
        path: The checkpoint; written every few minutes and at the end.
        minutes: Wall time; the rate falls to nearly zero over the last 70 % of it.
        stage: ``whole`` or ``decoder``.
        crop_px: Side of the training squares.
        batch: Squares a step.
    """
    model = build().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    whole = stage == "whole"
    trained = model if whole else model.decoder
    optimiser = Optimiser(trained.named_parameters())
    state = checkpoint.read(path)
    done = age = 0
    if state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        done = state["step"]
        if state["stage"] == stage:
            optimiser.load_state_dict(state["optimiser"])
            age = done
    rng = random.Random(done)
    torch.manual_seed(done)

    def one(step: int) -> float:
        wanted = pictures(rng, batch, crop_px, crops=2 if crop_px < SIZE_PX else 1)
        wanted = wanted.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(whole):
            latents = model.encoder(wanted)
        noisy = latents + NOISE * torch.randn_like(latents)
        loss = loss_of(model.decoder(noisy), wanted)
        total = loss + 0.1 * _spread_loss(latents) if whole else loss
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        checkpoint.blend(average, model, min(0.995, (age + step + 1) / (age + step + 10)))
        return float(loss.item())

    def rate(step: int, part: float) -> float:
        return RATES[stage] * min(1, (step + 1) / 60, 0.03 + (1 - part) / 0.7)

    def save(steps: int) -> None:
        checkpoint.write(
            path,
            {
                "stage": stage,
                "step": done + steps,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
            },
        )

    steps = loop.run(
        one,
        optimiser,
        minutes=minutes,
        rate=rate,
        save=save,
        tell=lambda: f"{psnr(average, 16):.2f} dB",
    )
    if whole:
        model.load_state_dict(average.state_dict())
        for each in (model, average):
            normalise(each, random.Random(11))
        save(steps)
    print(f"{stage} done: step {done + steps}, {psnr(average):.2f} dB", flush=True)
