"""The table of classes: each is there, does its task, and can be derived from its kin."""

import inspect

import diffusers
import pytest

from nbimg.local import families, loading
from nbimg.local.families import FAMILIES, class_for, family_of, guidance_argument, tasks_of
from nbimg.local.manifest import Manifest

KIN = [row for row in families._KIN if len({name for name in row if name}) > 1]


def taken(name):
    found = inspect.signature(getattr(diffusers, name).__call__).parameters
    if "args" in found:
        pytest.skip(f"{name} needs a package that is not installed")
    return found


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_class_of_the_table_is_in_diffusers_and_takes_what_the_table_says(name):
    family, parameters = FAMILIES[name], taken(name)
    edits = "Img2Img" in name or "Inpaint" in name or "Edit" in name or "Pix2Pix" in name
    if edits or family.reading == "references":
        assert family.image in parameters
    if family.guidance != "by_config":
        assert family.guidance in parameters or name == "Flux2KleinKVPipeline"
    else:
        assert {"guidance_scale", "true_cfg_scale", "negative_prompt"} <= parameters.keys()
    if family.exact:
        assert {"max_area", "_auto_resize"} <= parameters.keys()


@pytest.mark.parametrize("row", KIN, ids=[str(row[1]) for row in KIN])
def test_kin_is_derived_from_the_parts_of_any_of_its_classes(row):
    first = next(name for name in row if name)
    assert taken(first)
    kind = getattr(diffusers, first)
    parts = dict.fromkeys(inspect.signature(kind.__init__).parameters)
    parts.pop("self")
    parts = {name: None for name in parts if inspect.signature(kind).parameters[name].default
             is inspect.Parameter.empty}  # fmt: skip
    base = kind(**{**parts, "scheduler": diffusers.EulerDiscreteScheduler()})
    card = Manifest(None, first, name="local:x")
    for task in ("generate", "edit", "inpaint"):
        name = class_for(first, task)
        if name is not None:
            made = loading.derive(card, base, task)
            assert type(made).__name__ == name
            assert made.scheduler is not base.scheduler or made is base


def test_a_class_that_nobody_knows_is_single_and_does_what_its_arguments_say():
    assert family_of("BrandNewPipeline").reading == "single"
    assert tasks_of("BrandNewPipeline", {"prompt"}) == {"generate"}
    assert tasks_of("BrandNewPipeline", {"prompt", "image"}) == {"edit"}
    assert tasks_of("FluxFillPipeline", taken("FluxFillPipeline")) == {"inpaint"}
    assert class_for("FluxFillPipeline", "inpaint") == "FluxFillPipeline"
    assert class_for("BrandNewPipeline", "combine") is None


def test_only_classes_of_references_combine():
    assert "combine" in tasks_of("QwenImageEditPlusPipeline", ())
    assert "combine" not in tasks_of("QwenImageEditPipeline", ())
    assert "combine" not in tasks_of("StableDiffusionPipeline", ())


@pytest.mark.parametrize(
    ("name", "distilled", "argument"),
    [
        ("StableDiffusionPipeline", False, "guidance_scale"),
        ("FluxPipeline", True, "guidance_scale"),
        ("FluxPipeline", False, "true_cfg_scale"),
        ("QwenImageEditPlusPipeline", False, "true_cfg_scale"),
        ("QwenImage21Pipeline", False, "true_cfg_scale"),
        ("Flux2KleinKVPipeline", False, None),
    ],
)
def test_guidance_goes_to_the_argument_that_takes_effect(name, distilled, argument):
    assert guidance_argument(name, taken(name), distilled=distilled) == argument
