import itertools
import math
import time
from types import SimpleNamespace

import pytest

from nbimg.backends.local import demo_folder
from nbimg.events import Preview
from nbimg.local import colours, manifest, pipelines, previews
from nbimg.media import pixels

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
np = pytest.importorskip("numpy")

CARD = manifest.read(demo_folder())


@pytest.fixture(scope="module")
def pipe():
    return pipelines.Pipelines().get(CARD, "generate", "cpu", "float32")


@pytest.fixture
def unthrottled(monkeypatch):
    monkeypatch.setattr(previews, "EVERY_S", 0.0)
    monkeypatch.setattr(previews, "SHARE", 1e9)


def generate(pipe, watcher, *, images=1, steps=10):
    def ended(_pipe, index, _time, values):
        watcher.step(index, values["latents"])
        return values

    generators = [torch.Generator().manual_seed(seed) for seed in range(images)]
    return pipe(
        ["a red house at night"] * images,
        generator=generators,
        num_inference_steps=steps,
        guidance_scale=2.0,
        callback_on_step_end=ended,
    ).images


def array(image, size=(192, 192)):
    return np.asarray(image.convert("RGB").resize(size)).astype(float)


def distance(preview, image):
    """Root of the mean squared difference, in levels of 0 to 255."""
    return math.sqrt(((array(pixels.decode(preview.data)) - array(image)) ** 2).mean())


def test_previews_are_small_webp_pictures_of_the_first_images(pipe, unthrottled):
    seen = []
    generate(pipe, previews.Previews(pipe, lambda row, e: seen.append((row, e))), images=6, steps=3)
    assert {row for row, _ in seen} == set(range(previews.FIRST))
    assert all(isinstance(event, Preview) for _, event in seen)
    assert all(pixels.sniff(event.data) == "image/webp" for _, event in seen)
    assert max(len(event.data) for _, event in seen) < 6000


def test_a_preview_halfway_shows_the_picture_and_not_the_noise(pipe, unthrottled, monkeypatch):
    seen, raw = [], []
    (image,) = generate(pipe, previews.Previews(pipe, lambda _, e: seen.append(e)))
    monkeypatch.setattr(previews, "_solved", lambda _scheduler, _before, after: after)
    generate(pipe, previews.Previews(pipe, lambda _, e: raw.append(e)))
    assert distance(seen[4], image) < 15
    assert distance(seen[4], image) < 0.5 * distance(raw[4], image)
    assert distance(seen[-1], image) < 6


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {}),
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}),
        ("UniPCMultistepScheduler", {}),
    ],
)
def test_the_picture_is_solved_for_from_two_mixtures(kind, told):
    if told:
        told = {**told, "prediction_type": "flow_prediction"}
    scheduler = getattr(diffusers, kind)(**told)
    scheduler.set_timesteps(8)
    picture, noise = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(0))

    def mixture(sigma):
        part, rest = previews._shares(scheduler, sigma)
        return part * picture + rest * noise

    scheduler._step_index = 4  # after the fourth step
    before, after = mixture(scheduler.sigmas[3]), mixture(scheduler.sigmas[4])
    assert (before - picture).abs().max() > 0.1
    assert torch.allclose(previews._solved(scheduler, before, after), picture, atol=1e-3)


def test_a_sampler_that_tells_nothing_gives_what_it_has():
    scheduler = diffusers.DDIMScheduler()
    before, after = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    assert previews._solved(scheduler, before, after) is after


def test_they_come_no_oftener_than_their_pace_and_cost_little(pipe, monkeypatch):
    monkeypatch.setattr(previews, "EVERY_S", 0.05)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = []
    watcher = previews.Previews(pipe, lambda *_: shown.append(now[0]))
    decoder = colours.find_decoder(pipe)
    monkeypatch.setattr(decoder, "seconds_each", 0.001)
    latents = torch.zeros(1, pipe.unet.config.in_channels, 12, 12)
    for index in range(400):
        now[0] += 0.01
        watcher.step(index, latents)
    gaps = [later - earlier for earlier, later in itertools.pairwise(shown)]
    assert min(gaps) >= 0.05 - 1e-9
    assert len(shown) > 20
    monkeypatch.setattr(decoder, "seconds_each", 10.0)
    few = len(shown)
    watcher = previews.Previews(pipe, lambda *_: shown.append(now[0]))
    for index in range(400):
        now[0] += 0.01
        watcher.step(index, latents)
    assert len(shown) == few


def test_a_preview_that_fails_never_fails_the_picture_and_is_not_tried_again(pipe, unthrottled):
    tried = []

    def broken(*_):
        tried.append(1)
        raise RuntimeError("the listener is gone")

    watcher = previews.Previews(pipe, broken)
    assert len(generate(pipe, watcher, steps=3)) == 1
    assert len(tried) == 1
    unreadable = previews.Previews(pipe, broken)
    unreadable.step(0, torch.full((1, 3, 1), float("nan")))
    unreadable.step(1, None)


def tiny_vae():
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        latent_channels=4,
    ).eval()


class LinearVae(torch.nn.Module):
    """An encoder whose latents are a fixed mixture of the mean colours of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.config = {"scaling_factor": 0.5, "shift_factor": 0.25}
        mixture = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
        self.mixture = torch.nn.Parameter(mixture)

    def encode(self, picture):
        small = torch.nn.functional.avg_pool2d(picture, 8)
        return SimpleNamespace(
            latent_dist=SimpleNamespace(
                mode=lambda: torch.einsum("lc,bchw->blhw", self.mixture, small)
            )
        )

    def latents_of(self, colours_):
        plain = torch.einsum("lc,bchw->blhw", self.mixture, colours_ * 2 - 1)
        return (plain - self.config["shift_factor"]) * self.config["scaling_factor"]


def pipe_with(vae, **more):
    return SimpleNamespace(
        vae=vae, vae_scale_factor=8, scheduler=diffusers.DDIMScheduler(), config={}, **more
    )


def test_without_a_tiny_decoder_the_colours_come_from_the_models_own_encoder():
    vae = LinearVae()
    wanted = torch.rand(1, 3, 5, 8, generator=torch.Generator().manual_seed(2))
    shown = colours.find_decoder(pipe_with(vae))._decode(vae.latents_of(wanted))
    factor = shown.shape[-1] // 8
    middle = torch.nn.functional.avg_pool2d(shown, factor)
    assert (middle - wanted).abs().mean() < 0.1
    assert shown.shape[-2:] == (5 * factor, 8 * factor)


def test_packed_latents_are_unpacked_to_the_shape_of_the_images():
    vae = LinearVae()
    pack = diffusers.FluxPipeline._pack_latents
    flux = pipe_with(vae, _unpack_latents=diffusers.FluxPipeline._unpack_latents)
    latents = torch.randn(2, 4, 6, 10)
    packed = pack(latents, 2, 4, 6, 10)
    assert torch.equal(colours._unpacked(flux, packed, 10 / 6), latents)
    qwen = pipe_with(vae, _unpack_latents=diffusers.QwenImagePipeline._unpack_latents)
    assert torch.equal(colours._unpacked(qwen, packed, 1.6), latents)


def test_the_grid_of_patches_is_the_one_nearest_to_the_shape_of_the_images():
    assert colours._grid(64, 1.0) == (8, 8)
    assert colours._grid(24, 16 / 9) == (6, 4)
    assert colours._grid(24, 9 / 16) == (4, 6)


def test_an_encoder_that_overflows_in_half_precision_gives_grey_shapes():
    vae = LinearVae()
    vae.mixture.data[0] = float("inf")
    shown = colours.find_decoder(pipe_with(vae))._decode(torch.randn(1, 4, 8, 8))
    assert 0 <= shown.min() <= shown.max() <= 1


def test_an_encoder_that_is_kept_off_the_card_is_not_moved(monkeypatch):
    vae = tiny_vae()
    vae._hf_hook = object()
    monkeypatch.setattr(type(vae), "encode", lambda *_: pytest.fail("it was called"))
    shown = colours.find_decoder(pipe_with(vae))._decode(torch.randn(1, 4, 8, 8))
    assert 0 <= shown.min() <= shown.max() <= 1


def test_a_tiny_decoder_in_the_models_folder_is_used(tmp_path):
    tiny = diffusers.AutoencoderTiny(latent_channels=4, encoder_block_out_channels=(8,) * 4,
                                     decoder_block_out_channels=(8,) * 4)  # fmt: skip
    tiny.save_pretrained(tmp_path / "preview")
    pipe = pipe_with(tiny_vae(), name_or_path=str(tmp_path))
    assert type(colours._tiny(pipe)).__name__ == "AutoencoderTiny"
    assert colours.find_decoder(pipe)._decode(torch.zeros(1, 4, 4, 4)).shape == (1, 3, 32, 32)
    assert colours._tiny(pipe_with(tiny_vae(), name_or_path="")) is None
