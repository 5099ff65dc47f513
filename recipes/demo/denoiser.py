"""Words and noise → latents: a small `UNet2DConditionModel` and its text encoder, trained jointly.

Flow matching: at noise share s the network sees (1 - s) * latents + s * noise and predicts
noise - latents. One network does both tasks: its input is 16 channels of noisy latents and 16 of
the picture to edit, which are zero when there is none.
"""

import copy
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from recipes.demo import checkpoint, loop, words
from recipes.demo.autoencoder import LATENT_CHANNELS
from recipes.demo.optimiser import Optimiser
from recipes.demo.pool import Batch, Pool

LATENT_SIDE = 12
BATCH = 32
RATE = 2e-3
KEEP = 0.998  # of the averaged weights at each step
RENEW = 4  # pairs made anew at every fourth step


def build_unet() -> UNet2DConditionModel:
    """Return the untrained denoiser."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 112),
        layers_per_block=1,
        cross_attention_dim=words.WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        # The caption as a whole steers every layer, beside the words that each place looks up:
        # backgrounds and times of day are learnt sooner.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def build(tokens: CLIPTokenizer) -> nn.ModuleDict:
    """Return the untrained pair: ``unet`` and ``text``."""
    unet = build_unet()
    unet.to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # faster to train on a CPU than the fused one
    return nn.ModuleDict({"unet": unet, "text": words.text_encoder(tokens)})


def loss_of(model: nn.ModuleDict, tokens: CLIPTokenizer, batch: Batch) -> Tensor:
    """Return the mean squared error of the predicted flow, over all shares of noise."""
    number = len(batch.texts)
    # Half of the shares are spread evenly: the first steps of a picture, nearly all noise, decide
    # how many things there are and where, and a logit-normal alone hardly ever shows them.
    even = torch.rand(number) < 0.5
    share = torch.where(even, torch.rand(number), torch.sigmoid(0.4 + torch.randn(number)))
    noise = torch.randn_like(batch.wanted)
    mixed = torch.lerp(batch.wanted, noise, share[:, None, None, None])
    states = model["text"](words.encode(tokens, batch.texts)).last_hidden_state
    inputs = torch.cat([mixed, batch.sources], 1)
    flow = model["unet"](inputs, share * 1000, encoder_hidden_states=states).sample
    loss: Tensor = functional.mse_loss(flow, noise - batch.wanted)
    return loss


def train(
    path: Path, pool: Pool, tokens: CLIPTokenizer, start: nn.ModuleDict, minutes: float
) -> None:
    """Train for some minutes, from the checkpoint at `path`, else from `start`.

    Args:
        path: The checkpoint; written every few minutes and at the end.
        pool: Encoded pictures; renewed on the way.
        tokens: The tokenizer.
        start: ``unet`` and ``text`` to start from without a checkpoint.
        minutes: Wall time; the rate falls to zero over the last 60 %.
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

    def one(step: int) -> float:
        if step % RENEW == 0:
            pool.renew(RENEW)  # encoding is cheaper in a batch
        loss = loss_of(model, tokens, pool.batch(BATCH))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        age = done + step + 1
        checkpoint.blend(average, model, min(KEEP, age / (age + 9)))
        return float(loss.item())

    def rate(step: int, part: float) -> float:
        return RATE * min(1, (step + 1) / 100, 0.02 + (1 - part) / 0.6)

    def save(steps: int) -> None:
        checkpoint.write(
            path,
            {
                "step": done + steps,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
            },
        )

    loop.run(
        one,
        optimiser,
        minutes=minutes,
        rate=rate,
        save=save,
        tell=lambda: f"pool {len(pool.edits)}",
    )
