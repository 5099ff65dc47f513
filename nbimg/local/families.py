"""What a list means to each pipeline class, and which classes are one model: a table.

Stage: below batching. Comes in: the name of a diffusers class. Goes out: how to hand it prompts and
images. Data only; must not: import diffusers, or guess from a signature, which is the same for classes that
read a list in opposite ways.

`prompt=[…], image=[…]` are pairs to some classes and, to others, all images are references of every prompt;
neither raises when it is taken for the other. A class that is not here is called image by image, which is
slow and never wrong. tests/local/test_contract.py pins what the installed diffusers does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["FAMILIES", "Family", "Task", "class_for", "family_of", "guidance_argument", "tasks_of"]

Reading = Literal["pairs", "references", "single"]
Task = Literal["generate", "edit", "combine", "inpaint"]


@dataclass(frozen=True, slots=True)
class Family:
    """How a class is called.

    Attributes:
        reading: What a list of images is to it. `pairs`: one for each prompt; `references`: all of them are
            seen by every prompt; `single`: it is called for one image at a time.
        image: Its argument for input images.
        nested: Whether references come as a list a prompt.
        guidance: The argument that makes a prompt count more; `by_config`: `guidance_scale` where the network
            was distilled for it, else `true_cfg_scale`.
        negative: Whether guidance takes effect only when there is a negative prompt.
        area_px: The area that the class itself brings input images to, whatever is asked; 0: none.
        multiple: Sides of that area are a multiple of this.
        exact: Arguments that keep the class from choosing another size, where it does.
    """

    reading: Reading = "single"
    image: str = "image"
    nested: bool = False
    guidance: str = "guidance_scale"
    negative: bool = False
    area_px: int = 0
    multiple: int = 0
    exact: bool = False


_PAIRS = Family("pairs")
_FLUX = Family("pairs", guidance="by_config", negative=True)
_KONTEXT = Family("pairs", guidance="by_config", negative=True, exact=True)
_QWEN_EDIT = Family("pairs", guidance="by_config", negative=True, area_px=1024 * 1024, multiple=32)
_REFERENCES = Family("references")

#: Class → how it is called.
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(
        (
            "AuraFlowPipeline",
            "ChromaImg2ImgPipeline",
            "ChromaPipeline",
            "KolorsImg2ImgPipeline",
            "KolorsPipeline",
            "LatentConsistencyModelImg2ImgPipeline",
            "LatentConsistencyModelPipeline",
            "Lumina2Pipeline",
            "PixArtAlphaPipeline",
            "PixArtSigmaPipeline",
            "SanaPipeline",
            "SanaSprintPipeline",
            "StableDiffusion3Img2ImgPipeline",
            "StableDiffusion3InpaintPipeline",
            "StableDiffusion3Pipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "StableDiffusionInstructPix2PixPipeline",
            "StableDiffusionPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLInpaintPipeline",
            "StableDiffusionXLPipeline",
            "ZImageImg2ImgPipeline",
            "ZImageInpaintPipeline",
            "ZImagePipeline",
        ),
        _PAIRS,
    ),
    **dict.fromkeys(
        (
            "FluxImg2ImgPipeline",
            "FluxInpaintPipeline",
            "FluxPipeline",
            "QwenImageImg2ImgPipeline",
            "QwenImageInpaintPipeline",
            "QwenImagePipeline",
        ),
        _FLUX,
    ),
    "FluxKontextPipeline": _KONTEXT,
    "FluxKontextInpaintPipeline": _KONTEXT,
    "QwenImageEditPipeline": _QWEN_EDIT,
    "QwenImageEditInpaintPipeline": _QWEN_EDIT,
    "QwenImageEditPlusPipeline": Family("references", guidance="by_config", negative=True),
    "Flux2Pipeline": _REFERENCES,
    "Flux2KleinPipeline": _REFERENCES,
    "Flux2KleinKVPipeline": _REFERENCES,
    "ZImageOmniPipeline": _REFERENCES,
    "OmniGenPipeline": Family("references", image="input_images", nested=True),
    "QwenImage21Pipeline": Family("references", guidance="true_cfg_scale", negative=True),
    "LongCatImageEditPipeline": Family(),
    "JoyImageEditPipeline": Family(),
}

#: Classes that share all components: what makes, what edits, what edits inside a mask.
_KIN: tuple[tuple[str | None, str | None, str | None], ...] = (
    *(
        (f"{stem}Pipeline", f"{stem}Img2ImgPipeline", f"{stem}InpaintPipeline")
        for stem in (
            "StableDiffusion",
            "StableDiffusionXL",
            "StableDiffusion3",
            "Flux",
            "QwenImage",
            "ZImage",
        )
    ),
    *(
        (f"{stem}Pipeline", f"{stem}Img2ImgPipeline", None)
        for stem in ("Chroma", "Kolors", "LatentConsistencyModel")
    ),
    ("FluxKontextPipeline", "FluxKontextPipeline", "FluxKontextInpaintPipeline"),
    ("Flux2Pipeline", "Flux2Pipeline", None),
    ("Flux2KleinPipeline", "Flux2KleinPipeline", "Flux2KleinInpaintPipeline"),
    ("OmniGenPipeline", "OmniGenPipeline", None),
    ("QwenImage21Pipeline", "QwenImage21Pipeline", None),
    ("ZImageOmniPipeline", "ZImageOmniPipeline", None),
    (None, "QwenImageEditPipeline", "QwenImageEditInpaintPipeline"),
    (None, "QwenImageEditPlusPipeline", None),
    (None, "StableDiffusionInstructPix2PixPipeline", None),
    (None, "LongCatImageEditPipeline", None),
    (None, "JoyImageEditPipeline", None),
)


def family_of(name: str) -> Family:
    """Return how a class is called; one that nobody knows is called for one image at a time.

    >>> family_of("SomethingNewPipeline").reading
    'single'
    """
    return FAMILIES.get(name, Family())


def class_for(name: str, task: Task) -> str | None:
    """Return the class that does a task with the components of another; None: there is none.

    >>> class_for("StableDiffusionXLPipeline", "inpaint")
    'StableDiffusionXLInpaintPipeline'
    """
    row = next((row for row in _KIN if name in row), None)
    if row is None:  # it does what it does
        return None if task == "combine" else name
    if task == "combine":
        return row[1] if row[1] and family_of(row[1]).reading == "references" else None
    return row[("generate", "edit", "inpaint").index(task)]


def tasks_of(name: str, taken: Collection[str]) -> frozenset[Task]:
    """Return what can be done with the components of a class.

    Args:
        name: The class.
        taken: The arguments of its call, which decide where nobody knows the class.
    """
    if any(name in row for row in _KIN):
        every: tuple[Task, ...] = ("generate", "edit", "combine", "inpaint")
        return frozenset(task for task in every if class_for(name, task) is not None)
    if "mask_image" in taken:
        return frozenset({"inpaint"})
    return frozenset({"edit"} if "image" in taken else {"generate"})


def guidance_argument(name: str, taken: Collection[str], *, distilled: bool) -> str | None:
    """Return the argument by which `--guidance` takes effect.

    Args:
        name: The class.
        taken: The arguments of its call.
        distilled: Whether the network was trained to be told the guidance (`guidance_embeds`).
    """
    argument = family_of(name).guidance
    if argument == "by_config":
        argument = "guidance_scale" if distilled else "true_cfg_scale"
    return argument if argument in taken else None
