"""Pipelines of the real diffusers classes with small random weights.

Networks, decoders and samplers are the real ones. Where a text encoder would need a large vocabulary, a
`Reader` stands in: it embeds the bytes of the prompt, so that different prompts stay different.
"""

from types import SimpleNamespace

import diffusers
import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from nbimg.backends.local import demo_folder

SIDE = 32


class Tokens(dict):
    """What a tokenizer returns: keys that are attributes, and `.to`."""

    __getattr__ = dict.__getitem__

    def to(self, device):
        return self


class Speller:
    """A tokenizer whose tokens are bytes."""

    model_max_length = 48

    def __call__(self, text, images=None, padding=True, max_length=None, **_):
        texts = [text] if isinstance(text, str) else list(text)
        rows = [list(one.encode())[-400:] for one in texts]
        length = max_length if padding == "max_length" else max(map(len, rows))
        rows = [row[:length] for row in rows]
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        found = Tokens(input_ids=ids, attention_mask=(ids > 0).long())
        if images is not None:
            pictures = images if isinstance(images, list) else [images]
            pads = sum(one.count("<|image_pad|>") for one in texts)
            if pads != len(pictures):  # as the processor of Qwen2-VL
                raise ValueError(f"{pads} image tokens, {len(pictures)} images")
            means = [np.asarray(picture, dtype="float32").mean() / 255 for picture in pictures]
            found["pixel_values"] = torch.tensor(means)
        return found

    def tokenize(self, text):
        return []

    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"]

    def batch_decode(self, *_):
        return [""]


class Reader(torch.nn.Module):
    """A text encoder that embeds each token by itself, and adds how bright each row's pictures are."""

    def __init__(self, width, layers=4):
        super().__init__()
        self.words = torch.nn.Embedding(256, width)
        self.layers = layers
        self.config = SimpleNamespace(hidden_size=width)

    @property
    def dtype(self):
        return self.words.weight.dtype

    @property
    def device(self):
        return self.words.weight.device

    def forward(self, input_ids, attention_mask=None, pixel_values=None, **_):
        states = self.words(input_ids)
        if pixel_values is not None:
            share = pixel_values.reshape(len(input_ids), -1).sum(1)
            states = states + share[:, None, None].to(states.dtype)
        return Read(states, self.layers)


class Read(SimpleNamespace):
    """What a text encoder returns: by name, or its first value by number."""

    def __init__(self, states, layers):
        super().__init__(hidden_states=[states] * layers, last_hidden_state=states)

    def __getitem__(self, number):
        return self.last_hidden_state


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def clip(width=32):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(demo_folder() / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 2,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id or 0,
    )
    return tokenizer, seeded(lambda: CLIPTextModel(config))


def kl(latent=4, factor=8):
    blocks = (8,) * (factor.bit_length())
    return seeded(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=("DownEncoderBlock2D",) * len(blocks),
            up_block_types=("UpDecoderBlock2D",) * len(blocks),
            latent_channels=latent,
            norm_num_groups=4,
            layers_per_block=1,
            sample_size=SIDE,
            shift_factor=0.0,
        )
    )


def unet(channels=4):
    return seeded(
        lambda: diffusers.UNet2DConditionModel(
            sample_size=SIDE // 8,
            in_channels=channels,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=32,
            attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )
    )


def stable_diffusion(kind="StableDiffusionPipeline", channels=4):
    tokenizer, encoder = clip()
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
    )
    return quiet(
        getattr(diffusers, kind)(
            vae=kl(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            unet=unet(channels),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def instruct():
    return stable_diffusion("StableDiffusionInstructPix2PixPipeline", channels=8)


def flux(kind="FluxPipeline", guidance=True):
    tokenizer, encoder = clip()
    network = seeded(
        lambda: diffusers.FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 4, 8),
        )
    )
    return quiet(
        getattr(diffusers, kind)(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=kl(latent=16),
            text_encoder=encoder,
            tokenizer=tokenizer,
            text_encoder_2=seeded(lambda: Reader(32)),
            tokenizer_2=Speller(),
            transformer=network,
        )
    )


def qwen_vae():
    return seeded(
        lambda: diffusers.AutoencoderKLQwenImage(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1
        )
    )


def qwen(kind="QwenImagePipeline"):
    network = seeded(
        lambda: diffusers.QwenImageTransformer2DModel(
            in_channels=64,
            out_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 4, 8),
        )
    )
    parts = {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": qwen_vae(),
        "text_encoder": seeded(lambda: Reader(32)),
        "tokenizer": Speller(),
        "transformer": network,
    }
    if "Edit" in kind:
        parts["processor"] = Speller()
    return quiet(getattr(diffusers, kind)(**parts))


def klein():
    network = seeded(
        lambda: diffusers.Flux2Transformer2DModel(
            in_channels=32,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=96,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
    )
    vae = seeded(
        lambda: diffusers.AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            latent_channels=8,
            norm_num_groups=4,
            layers_per_block=1,
        )
    )
    return quiet(
        diffusers.Flux2KleinPipeline(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=vae,
            text_encoder=seeded(lambda: Reader(32, layers=28)),
            tokenizer=Speller(),
            transformer=network,
        )
    )


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


#: Name → what builds it; each is built once in a run of the tests.
BUILDERS = {
    "sd": stable_diffusion,
    "sd-edit": lambda: stable_diffusion("StableDiffusionImg2ImgPipeline"),
    "sd-inpaint": lambda: stable_diffusion("StableDiffusionInpaintPipeline"),
    "instruct": instruct,
    "flux": flux,
    "flux-edit": lambda: flux("FluxImg2ImgPipeline"),
    "flux-inpaint": lambda: flux("FluxInpaintPipeline"),
    "kontext": lambda: flux("FluxKontextPipeline"),
    "qwen": qwen,
    "qwen-edit": lambda: qwen("QwenImageEditPipeline"),
    "qwen-plus": lambda: qwen("QwenImageEditPlusPipeline"),
    "klein": klein,
}
