"""Models of the sizes that people use, with random weights: networks, and whole folders to load.

Random weights make no picture worth a look, and take as long as trained ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NETWORKS", "SIZES_PX", "Network", "at_home", "write"]

#: Side of the pictures that a model of this size makes.
SIZES_PX = {"sd15": 512, "sdxl": 1024}


@dataclass(frozen=True)
class Network:
    """What one step of a model calls.

    Attributes:
        name: With the size of the picture.
        make: Makes it, with random weights.
        given: Makes what one step of so many images is given.
    """

    name: str
    make: Callable[[], Any]
    given: Callable[[int], dict[str, Any]]


@contextlib.contextmanager
def at_home(device: str) -> Iterator[None]:
    """Have everything that is made inside be there, in bfloat16."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def small() -> Network:
    """As Stable Diffusion 1.5 at 512 x 512."""
    import torch

    return Network(
        "small (SD 1.5, 512x512)",
        _unet_small,
        lambda n: {
            "sample": torch.randn(n, 4, 64, 64),
            "timestep": torch.tensor(500),
            "encoder_hidden_states": torch.randn(n, 77, 768),
        },
    )


def sdxl() -> Network:
    """As Stable Diffusion XL at 1024 x 1024."""
    import torch

    return Network(
        "SDXL (1024x1024)",
        _unet_sdxl,
        lambda n: {
            "sample": torch.randn(n, 4, 128, 128),
            "timestep": torch.tensor(500),
            "encoder_hidden_states": torch.randn(n, 77, 2048),
            "added_cond_kwargs": {
                "text_embeds": torch.randn(n, 1280),
                "time_ids": torch.zeros(n, 6),
            },
        },
    )


def qwen_edit(side_px: int = 1024) -> Network:
    """As Qwen-Image-Edit: the picture that is made, and the one that is edited."""
    import torch
    from diffusers import QwenImageTransformer2DModel

    side = side_px // 16
    return Network(
        f"Qwen-Image-Edit ({side_px}x{side_px})",
        QwenImageTransformer2DModel,  # its defaults are that model
        lambda n: {
            "hidden_states": torch.randn(n, 2 * side * side, 64),
            "encoder_hidden_states": torch.randn(n, 512, 3584),
            "encoder_hidden_states_mask": torch.ones(n, 512, dtype=torch.bool),
            "timestep": torch.full((n,), 0.5),
            "img_shapes": [[(1, side, side), (1, side, side)]] * n,
        },
    )


NETWORKS: dict[str, Callable[[], Network]] = {
    "sd15": small,
    "sdxl": sdxl,
    "qwen-512": lambda: qwen_edit(512),
    "qwen": qwen_edit,
}


def write(name: str, place: Path, device: str) -> Path:
    """Write a model from text, as `save_pretrained` does, and return its folder.

    Args:
        name: `sd15` or `sdxl`.
        place: Where the folder is made.
        device: Where the weights are drawn: a card is much faster.
    """
    import diffusers

    kinds = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
    kind, large = getattr(diffusers, kinds[name]), name == "sdxl"
    tokenizer, encoder = _reader(768, 12, device)
    parts: dict[str, Any] = {"tokenizer": tokenizer, "text_encoder": encoder}
    if large:
        parts["tokenizer_2"], parts["text_encoder_2"] = _reader(1280, 32, device, projected=True)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    with at_home(device):
        parts["unet"] = (_unet_sdxl if large else _unet_small)()
        parts["vae"] = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=2,
            sample_size=SIZES_PX[name],
        )
    parts["scheduler"] = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    )
    folder = place / name
    kind(**parts).save_pretrained(folder)
    return folder


def _reader(width: int, layers: int, device: str, *, projected: bool = False) -> tuple[Any, Any]:
    """A tokenizer (the one that ships with nbimg) and an encoder of CLIP's size."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    from nbimg.backends.local import demo_folder

    tokenizer = CLIPTokenizer.from_pretrained(demo_folder() / "tokenizer", model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id or 0,
    )
    with at_home(device):
        return tokenizer, (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _unet_small() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def _unet_sdxl() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
