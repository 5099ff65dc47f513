"""Words and noise → latents: a small `UNet2DConditionModel` and its text encoder, trained jointly.

Flow matching: at noise share s the network sees (1 - s) * latents + s * noise and predicts
noise - latents. One network does both tasks: its input is 16 channels of noisy latents and 16 of
the picture to edit, which are zero when there is none.
"""

import copy
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional
from transformers import CLIPTokenizer

from recipes.demo import checkpoint, words
from recipes.demo.autoencoder import LATENT_CHANNELS
from recipes.demo.optimiser import Optimiser
from recipes.demo.pace import Pace
from recipes.demo.pool import Batch, Pool

LATENT_SIDE = 12
BATCH = 64
RATE = 2e-3
KEEP = 0.998  # of the averaged weights at each step
SAVE_EVERY_S = 150.0
Tensor = torch.Tensor


def build_unet() -> UNet2DConditionModel:
    """Return the untrained denoiser."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=words.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build(tokens: CLIPTokenizer) -> nn.ModuleDict:
    """Return the untrained pair: ``unet`` and ``text``."""
    unet = build_unet()
    unet.set_attn_processor(AttnProcessor())  # faster to train on a CPU than the fused one
    return nn.ModuleDict({"unet": unet, "text": words.text_encoder(tokens)})


def loss_of(model: nn.ModuleDict, tokens: CLIPTokenizer, batch: Batch) -> Tensor:
    """Return the mean squared error of the predicted flow; noise shares are logit-normal."""
    number = len(batch.texts)
    share = torch.sigmoid(torch.randn(number))
    noise = torch.randn_like(batch.wanted)
    mixed = torch.lerp(batch.wanted, noise, share[:, None, None, None])
    states = model["text"](words.encode(tokens, batch.texts)).last_hidden_state
    inputs = torch.cat([mixed, batch.sources], 1)
    flow = model["unet"](inputs, share * 1000, encoder_hidden_states=states).sample
    return functional.mse_loss(flow, noise - batch.wanted)


def train(path: Path, pool: Pool, tokens: CLIPTokenizer, start: nn.ModuleDict,
          minutes: float) -> None:
    """Train for some minutes, from the checkpoint at `path`, else from `start`.

    Args:
        path: The checkpoint; written every few minutes and at the end.
        pool: Encoded pictures; renewed on the way.
        tokens: The tokenizer.
        start: ``unet`` and ``text`` to start from without a checkpoint.
        minutes: Wall time; the rate falls to zero over the last third.
    """
    model = start
    average = copy.deepcopy(model)
    optimiser = Optimiser(model.named_parameters())
    state = checkpoint.read(path)
    done = 0
    if state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done = state["step"]
    torch.manual_seed(done)
    pace = Pace()
    begun = saved = told = time.monotonic()
    losses: list[float] = []
    step = 0

    def one() -> None:
        if step % 4 == 0:
            pool.renew(4)  # encoding is cheaper in a batch
        loss = loss_of(model, tokens, pool.batch(BATCH))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        checkpoint.blend(average, model, min(KEEP, (done + step + 1) / (done + step + 10)))
        losses.append(loss.item())

    def save() -> None:
        checkpoint.write(path, {"step": done + step, "model": model.state_dict(),
                                "average": average.state_dict(),
                                "optimiser": optimiser.state_dict()})

    while (part := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100, 0.02 + (1 - part) / 0.33)
        pace.run(one)
        step += 1
        now = time.monotonic()
        if now - told > 60:
            mean = sum(losses) / len(losses)
            print(f"step {done + step} loss {mean:.4f} {(now - told) / len(losses):.3f} s/step "
                  f"{torch.get_num_threads()} threads pool {len(pool.edits)}", flush=True)
            told = now
            losses.clear()
        if now - saved > SAVE_EVERY_S:
            saved = now
            save()
    save()
