import pytest

from nbimg.backends.local import demo_folder
from nbimg.errors import OptionError
from nbimg.local import manifest, pipelines, samplers

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
np = pytest.importorskip("numpy")

CARD = manifest.read(demo_folder())


@pytest.fixture(scope="module")
def pipe():
    return pipelines.Pipelines().get(CARD, "generate", "cpu", "float32")


def generate(pipe, steps=12):
    generator = torch.Generator().manual_seed(3)
    image = pipe("a red house by day", generator=generator, num_inference_steps=steps).images[0]
    return np.asarray(image).astype(int)


def test_every_name_that_is_allowed_makes_the_same_kind_of_picture(pipe):
    """A sampler that does not fit a model of flows makes noise, whose colours are far away."""
    own = generate(pipe)
    names = samplers.find_allowed(pipe.scheduler)
    assert {"dpm++", "unipc"} <= set(names)
    assert "euler" not in names  # of its list, but not for flows
    for name in names:
        with samplers.sampled(pipe, name):
            assert isinstance(pipe.scheduler, names[name])
            assert abs(generate(pipe).mean((0, 1)) - own.mean((0, 1))).max() < 40, name


def test_a_sampler_is_gone_after_the_call_also_when_it_fails(pipe):
    own = pipe.scheduler
    before = generate(pipe)
    with samplers.sampled(pipe, "unipc"):
        assert type(pipe.scheduler).__name__ == "UniPCMultistepScheduler"
        other = generate(pipe)
    assert pipe.scheduler is own
    with pytest.raises(ZeroDivisionError), samplers.sampled(pipe, "unipc"):
        raise ZeroDivisionError
    assert pipe.scheduler is own
    assert (generate(pipe) == before).all()
    assert (other != before).any()


def test_no_name_is_the_models_own(pipe):
    own = pipe.scheduler
    with samplers.sampled(pipe, None):
        assert pipe.scheduler is own


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        ("Euler-A", "EulerAncestralDiscreteScheduler", {}),
        ("euler a", "EulerAncestralDiscreteScheduler", {}),
        ("dpm++", "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
        ("dpm++-sde", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("dpm++-karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
        ("lcm", "LCMScheduler", {}),
        ("DDIMScheduler", "DDIMScheduler", {}),
        ("ddim", "DDIMScheduler", {}),
        ("UniPCMultistep", "UniPCMultistepScheduler", {}),
    ],
)
def test_names_of_the_field_and_of_classes_are_understood(pipe, monkeypatch, asked, kind, told):
    monkeypatch.setattr(pipe, "scheduler", diffusers.PNDMScheduler(beta_end=0.012))
    with samplers.sampled(pipe, asked):
        assert type(pipe.scheduler).__name__ == kind
        assert {name: pipe.scheduler.config[name] for name in told} == told
        assert pipe.scheduler.config.beta_end == 0.012  # the rest is the model's


def test_a_model_of_flows_has_the_samplers_of_flows():
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert list(samplers.find_allowed(flow)) == ["euler", "lcm"]


@pytest.mark.parametrize("name", ["euler", "ddim", "foo", "dpm++-karras", "EDMEulerScheduler", ""])
def test_one_that_does_not_fit_is_named_with_those_that_do(pipe, name):
    with pytest.raises(OptionError) as caught, samplers.sampled(pipe, name):
        pass
    text = str(caught.value)
    assert repr(name) in text
    assert "StableDiffusionPipeline" in text
    assert "dpm++, dpm++-sde" in text
    assert "\n" not in text
    assert "unipc" in caught.value.allowed
