"""The notebook's own machine: what batching, keeping a model loaded and nbimg itself cost and bring.

Everything goes from the prompt to PNG files on disk, in one run, turn by turn:

- `nbimg`: all images of a batch in one call of `nbimg.generate`.
- `by hand`: the best call of diffusers for the same images: a list of prompts, a generator each.
- `loop`: the same by hand, one image after the other.
- `reload`: as `by hand`, in a notebook whose cell loads the pipeline each time.

    python benchmarks/local.py [--device cuda] [--threads 1] [--batches 1,2,4,8,16] [--rounds 5]

On a CPU and one thread, seconds are those of the processor, so that other processes on the machine do not
count; what nbimg does in other threads counts as well.

With `--device cuda` also networks of three sizes with random weights in bfloat16, batch by batch: time a
step, and their share of the fastest matrix product that this card does here and now.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT = "a red house at night"
#: Rounds of a matrix product, and its side: large enough to keep any card busy.
MATMUL_SIDE, MATMUL_ROUNDS = 8192, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch, for all ways; 0: its own choice"
    )
    parser.add_argument("--batches", default="1,2,4,8,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--model", default="demo", help="demo, or local:FOLDER of a model from text"
    )
    known = parser.parse_args()
    if known.threads:
        os.environ["OMP_NUM_THREADS"] = str(known.threads)  # read when torch is imported
    batches = [int(text) for text in known.batches.split(",")]
    ways = Ways(known.model, known.device)
    print(
        f"{known.model} on {known.device}, {ways.threads} threads, median of {known.rounds} rounds"
    )
    table(ways, batches, known.rounds)
    first_step(ways, known.rounds)
    free_again(ways, known.rounds)
    if known.device.startswith("cuda"):
        networks(known.device, batches)


# ---------------------------------------------------------------- whole pictures


class Ways:
    """The ways to make the same pictures, with the same steps and guidance."""

    def __init__(self, model: str, device: str) -> None:
        import torch

        import nbimg
        from nbimg import session
        from nbimg.backends import local
        from nbimg.local import manifest

        self.model, self.device = model, device
        self.folder = Path(tempfile.mkdtemp(prefix="nbimg-bench-"))
        settings = session.default().settings
        settings.set("output_dir", str(self.folder / "nbimg"))
        settings.set("device", device)
        self._nbimg, self._torch, self._local, self._settings = nbimg, torch, local, settings
        place = local.demo_folder() if model == "demo" else Path(model.partition(":")[2])
        self._card = manifest.read(place)
        self._arguments = {
            name: value
            for name, value in self._card.tasks.get("generate", {}).items()
            if name != "image_guidance_scale"
        }
        self._pipe = self._loaded()
        self.threads = torch.get_num_threads()
        alone = device == "cpu" and self.threads == 1
        self.clock = time.process_time if alone else time.perf_counter

    def nbimg(self, images: int) -> None:
        """All in one call of nbimg."""
        self._nbimg.generate(PROMPT, model=self.model, n=images, seed=1, cache=False)

    def by_hand(self, images: int) -> None:
        """All in one call of diffusers."""
        self._write(self._pipe, [*range(1, images + 1)])

    def loop(self, images: int) -> None:
        """One call of diffusers for each."""
        for seed in range(1, images + 1):
            self._write(self._pipe, [seed])

    def reload(self, images: int) -> None:
        """One call of diffusers, after loading the model."""
        self._write(self._loaded(), [*range(1, images + 1)])

    def until_first_step(self) -> tuple[float, float]:
        """Return the seconds from the call to where the steps begin, and to the end of the first."""
        from nbimg.events import Step

        begun = time.time()
        job = self._nbimg.submit(PROMPT, model=self.model, seed=1, cache=False)
        job.wait()
        steps = [event for event in job.events if isinstance(event, Step)]
        return (
            min(step.at_utc for step in steps) - begun,
            min(step.at_utc for step in steps if step.done) - begun,
        )

    def unload(self) -> tuple[float, int, int]:
        """Let nbimg's model go; return the seconds, and the bytes taken before and after."""
        from nbimg.local.device import Device

        place = Device(self.device)
        self.nbimg(1)
        before, begun = place.used_bytes(), time.perf_counter()
        self._local.unload()
        return time.perf_counter() - begun, before, place.used_bytes()

    def _loaded(self) -> Any:
        """A pipeline as a person loads it; the shipped one is taken apart as nbimg does."""
        from nbimg.local.pipelines import Pipelines
        from nbimg.local.speed import tuned

        with contextlib.redirect_stderr(None):
            _, pipe = Pipelines().take(self._card, "generate", self.device, None, lambda _: None)
        return tuned(pipe, self._settings, self.device)  # the same attention and order of channels

    def _write(self, pipe: Any, seeds: list[int]) -> None:
        from nbimg.local.families import family_of

        generators = [self._torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        told = dict(self._arguments)
        if family_of(type(pipe).__name__).negative and _guides(pipe):
            told["negative_prompt"] = [" "] * len(seeds)  # else its guidance has no effect
        made = pipe([PROMPT] * len(seeds), generator=generators, **told).images
        for seed, image in zip(seeds, made, strict=True):
            image.save(self.folder / f"by-hand-{seed}.png")


def _guides(pipe: Any) -> bool:
    """Whether a pipeline guides by a second, negative prompt unless it is told otherwise."""
    scale = inspect.signature(pipe.__call__).parameters.get("true_cfg_scale")
    return scale is not None and (scale.default or 1) > 1


def table(ways: Ways, batches: list[int], rounds: int) -> None:
    print(f"\n{'':6}{'images/s':>40}{'nbimg beside':>32}")
    print(f"{'batch':6}{'nbimg':>10}{'by hand':>10}{'loop':>10}{'reload':>10}"
          f"{'by hand':>12}{'loop':>10}{'reload':>10}")  # fmt: skip
    for images in batches:
        works: dict[str, Callable[[int], None]] = {
            "nbimg": ways.nbimg, "by hand": ways.by_hand, "loop": ways.loop, "reload": ways.reload
        }  # fmt: skip
        for work in works.values():
            work(images)
        taken = [
            {name: seconds(work, images, ways.clock) for name, work in turn(works, k)}
            for k in range(rounds)
        ]
        rates = [images / statistics.median(row[name] for row in taken) for name in works]
        ratios = [
            statistics.median(row[name] / row["nbimg"] for row in taken)
            for name in ("by hand", "loop", "reload")
        ]
        print(f"{images:<6}" + "".join(f"{rate:10.2f}" for rate in rates)
              + f"{ratios[0]:12.2f}" + "".join(f"{ratio:10.2f}" for ratio in ratios[1:]))  # fmt: skip


def turn(works: dict[str, Any], first: int) -> Iterator[tuple[str, Any]]:
    """Each way in turn, a different one first each round: what else the machine does hits all."""
    names = list(works)
    for place in range(len(names)):
        name = names[(first + place) % len(names)]
        yield name, works[name]


def seconds(work: Callable[[int], None], images: int, clock: Callable[[], float]) -> float:
    begun = clock()
    work(images)
    return clock() - begun


def first_step(ways: Ways, rounds: int) -> None:
    ways.until_first_step()
    begins, ends = zip(*(ways.until_first_step() for _ in range(rounds)), strict=True)
    print(f"\nmodel loaded, from the call to the pipeline's: {statistics.median(begins) * 1000:.0f} ms, "
          f"to the end of its first step: {statistics.median(ends) * 1000:.0f} ms")  # fmt: skip


def free_again(ways: Ways, rounds: int) -> None:
    took = [ways.unload() for _ in range(rounds)]
    given = statistics.median(before - after for _, before, after in took) / 2**20
    print(f"unloading: {statistics.median(each[0] for each in took) * 1000:.0f} ms, "
          f"{given:.0f} MiB given back")  # fmt: skip


# ---------------------------------------------------------------- networks on a card


@dataclass(frozen=True)
class Network:
    """A denoiser with random weights, and what one step of it is given."""

    name: str
    make: Callable[[], Any]
    given: Callable[[int], dict[str, Any]]


def small() -> Network:
    """As Stable Diffusion 1.5 at 512 x 512."""
    import torch
    from diffusers import UNet2DConditionModel

    return Network(
        "small (SD 1.5, 512x512)",
        lambda: UNet2DConditionModel(cross_attention_dim=768),
        lambda n: {
            "sample": torch.randn(n, 4, 64, 64),
            "timestep": torch.tensor(500),
            "encoder_hidden_states": torch.randn(n, 77, 768),
        },
    )


def sdxl() -> Network:
    """As Stable Diffusion XL at 1024 x 1024."""
    import torch
    from diffusers import UNet2DConditionModel

    return Network(
        "SDXL (1024x1024)",
        lambda: UNet2DConditionModel(
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
        ),
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


def qwen_edit() -> Network:
    """As Qwen-Image-Edit at 1024 x 1024: the picture that is made, and the one that is edited."""
    import torch
    from diffusers import QwenImageTransformer2DModel

    return Network(
        "Qwen-Image-Edit (1024x1024)",
        QwenImageTransformer2DModel,  # its defaults are that model
        lambda n: {
            "hidden_states": torch.randn(n, 2 * 64 * 64, 64),
            "encoder_hidden_states": torch.randn(n, 512, 3584),
            "encoder_hidden_states_mask": torch.ones(n, 512, dtype=torch.bool),
            "timestep": torch.full((n,), 0.5),
            "img_shapes": [[(1, 64, 64), (1, 64, 64)]] * n,
        },
    )


def networks(device: str, batches: list[int]) -> None:
    import torch

    peak = matmul_peak(device)
    print(
        f"\n{torch.cuda.get_device_name(device)}: {peak / 1e12:.0f} TFLOP/s in a matrix product, bf16"
    )
    for network in (small(), sdxl(), qwen_edit()):
        print(
            f"\n{network.name:30}{'ms a step':>12}{'images x steps/s':>18}{'TFLOP/s':>10}{'of peak':>9}"
        )
        try:
            sweep(network, device, batches, peak)
        except torch.OutOfMemoryError:
            print("out of memory")
        torch.cuda.empty_cache()


def sweep(network: Network, device: str, batches: list[int], peak: float) -> None:
    import torch

    with at_home(device):
        model = network.make().eval().requires_grad_(requires_grad=False)
    for batch in batches:
        with at_home(device), torch.inference_mode():
            given = network.given(batch)
            work = flops(model, given)
            took = step_seconds(model, given, device)
        rate = work / took
        print(f"{f'batch {batch}':30}{took * 1000:12.1f}{batch / took:18.2f}{rate / 1e12:10.0f}"
              f"{rate / peak:9.0%}", flush=True)  # fmt: skip


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


def flops(model: Any, given: dict[str, Any]) -> int:
    """Return the floating-point operations of a step: its products of matrices, convolutions, attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(**given)
    return int(counter.get_total_flops())


def step_seconds(model: Any, given: dict[str, Any], device: str, rounds: int = 10) -> float:
    import torch

    for _ in range(3):
        model(**given)
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    for _ in range(rounds):
        model(**given)
    torch.cuda.synchronize(device)
    return (time.perf_counter() - begun) / rounds


def matmul_peak(device: str) -> float:
    """Return the floating-point operations a second of a large matrix product in bfloat16."""
    import torch

    one, other = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        one @ other
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    for _ in range(MATMUL_ROUNDS):
        one @ other
    torch.cuda.synchronize(device)
    return MATMUL_ROUNDS * 2 * MATMUL_SIDE**3 / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
