import pytest

from nbimg.backends.schema import capabilities
from nbimg.testing import BUILTIN_MODELS, COMMUNITY_MODEL

MODELS = {model.name.partition("/")[2]: model for model in BUILTIN_MODELS}


def can(name):
    return capabilities(MODELS[name].openapi_schema["components"]["schemas"])


def schema(**properties):
    return {"Input": {"properties": properties}}


@pytest.mark.parametrize(
    ("model", "field", "kind", "composes", "makes", "most"),
    [
        ("flux-dev", "image", "file", False, True, 1),
        ("flux-kontext-max", "input_image", "file", False, True, 1),
        ("qwen-image-edit-plus", "image", "files", True, False, 1000),
        ("nano-banana", "image_input", "files", True, True, 1000),
        ("imagen-4-ultra", None, None, False, True, 0),
    ],
)
def test_the_field_for_input_images_is_found_whatever_it_is_called(
    model, field, kind, composes, makes, most
):
    found = can(model)
    image = found.options.get("image")
    assert (image.name if image else None) == field
    assert (image.type if image else None) == kind
    assert (found.composes, found.makes, found.max_images) == (composes, makes, most)


def test_our_options_get_the_names_of_the_model():
    flux = {option: field.name for option, field in can("flux-dev").options.items()}
    assert flux == {
        "ar": "aspect_ratio",
        "n": "num_outputs",
        "seed": "seed",
        "steps": "num_inference_steps",
        "guidance": "guidance",
        "strength": "prompt_strength",
        "format": "output_format",
        "image": "image",
    }
    assert can("imagen-4-ultra").options.keys() == {"ar", "format"}
    ink = capabilities(COMMUNITY_MODEL.openapi_schema["components"]["schemas"]).options
    assert ink["guidance"].name == "guidance_scale"
    assert (ink["width"].minimum, ink["width"].maximum) == (64, 1440)


def test_an_enumeration_is_found_behind_its_reference():
    ratio = can("flux-dev").options["ar"]
    assert ratio.allowed[:2] == ("1:1", "16:9")
    assert ratio.default == "1:1"
    assert can("flux-dev").extra["megapixels"].allowed == ("1", "0.25")


def test_the_prompt_is_neither_an_option_nor_a_parameter():
    found = can("flux-dev")
    assert "prompt" not in {f.name for f in found.options.values()} | found.extra.keys()


def test_masks_and_weights_are_no_pictures_to_work_on():
    uri = {"type": "string", "format": "uri"}
    found = capabilities(schema(lora_weights=uri, mask=uri, start=uri))
    assert found.options["image"].name == "start"
    assert found.options["mask"].name == "mask"
    assert "lora_weights" in found.extra


def test_any_of_with_null_and_a_number_of_files_are_understood():
    found = capabilities(
        schema(
            seed={"anyOf": [{"type": "integer", "maximum": 99}, {"type": "null"}]},
            images={"type": "array", "items": {"type": "string", "format": "uri"}, "maxItems": 4},
        )
    )
    assert (found.options["seed"].type, found.options["seed"].maximum) == ("integer", 99)
    assert found.max_images == 4


def test_a_model_without_a_schema_takes_whatever_it_is_given():
    assert capabilities({}).open
    assert not can("flux-dev").open
