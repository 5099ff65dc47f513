"""Checkpoints → the shipped folder, and the folder → pipelines.

Writes a half-precision `StableDiffusionInstructPix2PixPipeline` with an ``nbimg.json`` that says
what the model can do, and the model card with the measured figures.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextModel

from recipes.demo import autoencoder, captions, card, checkpoint, denoiser, drawing, scenes, words

WEIGHTS = Path(__file__).parents[2] / "nbimg" / "local" / "demo" / "weights"
AUTOENCODER = checkpoint.RUNS / "autoencoder.pt"
DENOISER = checkpoint.RUNS / "denoiser.pt"
STEPS = 16
GUIDANCE = 2.0
EDIT_GUIDANCE = 2.0
IMAGE_GUIDANCE = 1.3


def scheduler() -> DPMSolverMultistepScheduler:
    """Return the sampler: a second-order solver of the learnt flow."""
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, steps_offset=1
    )  # without effect on flow sigmas, but the pipelines warn without it


def trained_autoencoder() -> AutoencoderTiny | None:
    """Return the autoencoder of the checkpoint, else of the shipped folder, else None."""
    state = checkpoint.read(AUTOENCODER)
    if state:
        model = autoencoder.build()
        model.load_state_dict(state["average"])
    elif (WEIGHTS / "vae").exists():
        model = AutoencoderTiny.from_pretrained(WEIGHTS / "vae", torch_dtype=torch.float32)
    else:
        return None
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def trained_denoiser() -> nn.ModuleDict:
    """Return ``unet`` and ``text``: averages of the checkpoint, else shipped, else untrained."""
    model = denoiser.build(words.tokenizer())
    state = checkpoint.read(DENOISER)
    if state:
        model.load_state_dict(state["average"])
    elif (WEIGHTS / "unet").exists():
        unet = UNet2DConditionModel.from_pretrained(WEIGHTS / "unet", torch_dtype=torch.float32)
        text = CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32)
        model["unet"].load_state_dict(unet.state_dict())
        model["text"].load_state_dict(text.state_dict())
    return model


def editing() -> StableDiffusionInstructPix2PixPipeline:
    """Return the pipeline that edits, in full precision."""
    model = trained_denoiser().eval().requires_grad_(False)
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=trained_autoencoder(),
        text_encoder=model["text"],
        tokenizer=words.tokenizer(),
        unet=model["unet"],
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generating(editor: StableDiffusionInstructPix2PixPipeline) -> StableDiffusionPipeline:
    """Return the pipeline that makes pictures from words, from the components of the editor.

    The denoiser is the same but for the input channels of the source picture, which are zero here
    and can be cut off.
    """
    unet = UNet2DConditionModel.from_config(
        editor.unet.config, in_channels=editor.vae.config.latent_channels
    )
    state = dict(editor.unet.state_dict())
    state["conv_in.weight"] = state["conv_in.weight"][:, : unet.config.in_channels].clone()
    unet.load_state_dict(state)
    parts = {**editor.components, "unet": unet.eval(), "scheduler": scheduler()}
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def facts() -> dict[str, Any]:
    """Return what the runtime has to know: tasks with their defaults, and the vocabulary."""
    size = [drawing.SIZE_PX, drawing.SIZE_PX]
    return {
        "name": "nbimg demo",
        "licence": "MIT",
        "latent_channels": autoencoder.LATENT_CHANNELS,
        "tasks": {
            "generate": {
                "size_px": size,
                "steps": STEPS,
                "guidance": GUIDANCE,
                "slice_conv_in": True,
            },
            "edit": {
                "size_px": size,
                "steps": STEPS,
                "guidance": EDIT_GUIDANCE,
                "image_guidance": IMAGE_GUIDANCE,
                "slice_conv_in": False,
            },
        },
        "vocabulary": {
            "things": list(scenes.KINDS),
            "colours": list(scenes.COLOURS),
            "times": list(scenes.TIMES),
            "relations": ["left of", "right of", "above", "below", "next to"],
            "counts": list(captions.NUMBERS),
            "edits": [
                "make the house blue",
                "make the background yellow",
                "make it night",
                "remove the star",
                "turn the circle into a star",
            ],
        },
        "known_words": words.known(),
        "examples": card.EXAMPLES,
    }


def write(folder: Path = WEIGHTS) -> int:
    """Write the shipped folder and return its size in bytes."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    pipeline = editing()
    pipeline.unet.to(memory_format=torch.contiguous_format)
    pipeline.vae.to(memory_format=torch.contiguous_format)
    pipeline.to(torch.float16).save_pretrained(aside, safe_serialization=True)
    (aside / "nbimg.json").write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
    (aside / "MODEL_CARD.md").write_text(card.text(), encoding="utf-8")
    for path in aside.rglob("*.safetensors"):
        path.chmod(0o644)  # written for the owner only, but a package is for everyone
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
