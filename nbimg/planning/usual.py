"""The names that parameters of image models usually have.

Stage: below fitting. Goes out: name → our option of that meaning, or None where we have none. Whoever writes
one of these for a model without it has not mistyped: the value is translated or dropped, not refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["USUAL"]

USUAL: Mapping[str, str | None] = MappingProxyType(
    {
        "aspect_ratio": "ar",
        "ratio": "ar",
        "size": "size",
        "width": "width",
        "height": "height",
        "resolution": None,
        "megapixels": None,
        "seed": "seed",
        "num_outputs": None,
        "number_of_images": None,
        "negative_prompt": "negative",
        "num_inference_steps": "steps",
        "steps": "steps",
        "guidance": "guidance",
        "guidance_scale": "guidance",
        "cfg": "guidance",
        "cfg_scale": "guidance",
        "prompt_strength": "strength",
        "image_prompt_strength": None,
        "strength": "strength",
        "scheduler": "scheduler",
        "sampler": "scheduler",
        "output_format": "format",
        "output_quality": None,
        "quality": None,
        "background": None,
        "raw": None,
        "go_fast": None,
        "prompt_upsampling": None,
        "enhance_prompt": None,
        "magic_prompt_option": None,
        "safety_tolerance": None,
        "safety_filter_level": None,
        "moderation": None,
        "disable_safety_checker": None,
        "apply_watermark": None,
        "lora_scale": None,
        "refine": None,
        "high_noise_frac": None,
        "interval": None,
    }
)
