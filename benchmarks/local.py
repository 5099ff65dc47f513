"""The notebook's own machine: what batching, keeping a model loaded and nbimg itself cost and bring.

Everything goes from the prompt to PNG files on disk, in one run, turn by turn:

- `nbimg`: all images of a batch in one call of `nbimg.generate`.
- `by hand`: the best call of diffusers for the same images: a list of prompts, a generator each.
- `loop`: the same by hand, one image after the other.
- `reload`: as `by hand`, in a notebook whose cell loads the pipeline each time.

    python benchmarks/local.py [--device cuda] [--threads 1] [--batches 1,2,4,8,16] [--rounds 5]
                               [--model demo|sd15|sdxl|local:FOLDER] [--edit] [--steps 20]

On a CPU and one thread, seconds are those of the processor, so that other processes on the machine do not
count; what nbimg does in other threads counts as well. `sd15` and `sdxl` are models of those sizes with
random weights, for a card. With `--edit` as many different pictures are edited, from files.
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
from pathlib import Path
from typing import Any

from weights import SIZES_PX, write

PROMPT = "a red house at night"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch, for all ways; 0: its own choice"
    )
    parser.add_argument("--batches", default="1,2,4,8,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="demo", help="demo, sd15, sdxl, or local:FOLDER")
    parser.add_argument("--edit", action="store_true", help="edit pictures, one for each image")
    parser.add_argument("--steps", type=int, help="the model's own number without")
    parser.add_argument("--ways", default="nbimg,by hand,loop,reload")
    known = parser.parse_args()
    if known.threads:
        os.environ["OMP_NUM_THREADS"] = str(known.threads)  # read when torch is imported
    batches = [int(text) for text in known.batches.split(",")]
    with tempfile.TemporaryDirectory(prefix="nbimg-bench-") as folder:
        ways = Ways(known.model, known.device, "edit" if known.edit else "generate", Path(folder))
        if known.steps:
            ways.arguments["num_inference_steps"] = known.steps
        print(f"{known.model} on {ways.place}, {'edits' if known.edit else 'from text'}, "
              f"{ways.threads} threads, median of {known.rounds} rounds", flush=True)  # fmt: skip
        table(ways, batches, known.rounds, known.ways.split(","))
        first_step(ways, known.rounds)
        free_again(ways, known.rounds)


class Ways:
    """The ways to make the same pictures, with the same steps and guidance.

    Attributes:
        arguments: Of the pipeline, the same for all ways.
        place: The name of the device.
        threads: Of torch.
        clock: What the seconds are read from.
    """

    def __init__(self, model: str, device: str, task: str, folder: Path) -> None:
        import torch

        import nbimg
        from nbimg import session
        from nbimg.backends import local
        from nbimg.local import manifest

        self._device, self._task, self.folder = device, task, folder
        self._settings = session.default().settings
        self._settings.set("output_dir", str(self.folder / "nbimg"))
        self._settings.set("device", device)
        self._nbimg, self._torch, self._local = nbimg, torch, local
        known = {"demo": local.demo_folder()}
        if model in SIZES_PX:
            known[model] = write(model, folder, device)
        place = known.get(model) or Path(model.partition(":")[2])
        self._model = "demo" if model == "demo" else f"local:{place}"
        self._card = manifest.read(place)
        self.arguments = {
            name: value
            for name, value in self._card.tasks.get(task, {}).items()
            if task == "edit" or name != "image_guidance_scale"
        }
        self._pipe = self._loaded()
        self._pictures = self._drawn(SIZES_PX.get(model, 0)) if task == "edit" else []
        self.threads = torch.get_num_threads()
        alone = device == "cpu" and self.threads == 1
        self.clock = time.process_time if alone else time.perf_counter
        self.place = device if device == "cpu" else torch.cuda.get_device_name(device)

    def nbimg(self, images: int) -> None:
        """All in one call of nbimg."""
        known = {"model": self._model, "seed": 1, "cache": False, "params": self.arguments}
        if self._task == "edit":
            self._nbimg.edit(self._pictures[:images], PROMPT, **known)
        else:
            self._nbimg.generate(PROMPT, n=images, **known)

    def by_hand(self, images: int) -> None:
        """All in one call of diffusers."""
        self._write(self._pipe, [*range(images)])

    def loop(self, images: int) -> None:
        """One call of diffusers for each."""
        for number in range(images):
            self._write(self._pipe, [number])

    def reload(self, images: int) -> None:
        """One call of diffusers, after loading the model."""
        self._write(self._loaded(), [*range(images)])

    def until_first_step(self) -> tuple[float, float]:
        """Return the seconds from the call to where the steps begin, and to the end of the first."""
        from nbimg.events import Step

        begun = time.time()
        known = {"model": self._model, "seed": 1, "cache": False, "params": self.arguments}
        images = self._pictures[:1] or None
        job = self._nbimg.submit(PROMPT, image=images, **known)
        job.wait()
        steps = [event for event in job.events if isinstance(event, Step)]
        return (
            min(step.at_utc for step in steps) - begun,
            min(step.at_utc for step in steps if step.done) - begun,
        )

    def unload(self) -> tuple[float, int, int]:
        """Let nbimg's model go; return the seconds, and the bytes taken before and after."""
        from nbimg.local.device import Device

        place = Device(self._device)
        self.nbimg(1)
        before, begun = place.used_bytes(), time.perf_counter()
        self._local.unload()
        return time.perf_counter() - begun, before, place.used_bytes()

    def _loaded(self) -> Any:
        """A pipeline as a person loads it; the shipped one is taken apart as nbimg does."""
        from nbimg.local.pipelines import Pipelines
        from nbimg.local.speed import tuned

        with contextlib.redirect_stderr(None):
            _, pipe = Pipelines().take(self._card, self._task, self._device, None, lambda _: None)
        return tuned(pipe, self._settings, self._device)  # the same attention and order of channels

    def _write(self, pipe: Any, numbers: list[int]) -> None:
        from PIL import Image

        from nbimg.local.families import family_of

        edited = self._task == "edit"  # nbimg gives each input the seed of the call
        seeds = [1 if edited else 1 + number for number in numbers]
        generators = [self._torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        told = dict(self.arguments)
        if family_of(type(pipe).__name__).negative and _guides(pipe):
            told["negative_prompt"] = [" "] * len(seeds)  # else its guidance has no effect
        if edited:
            told["image"] = [Image.open(self._pictures[n]).convert("RGB") for n in numbers]
        made = pipe([PROMPT] * len(seeds), generator=generators, **told).images
        for number, image in zip(numbers, made, strict=True):
            image.save(self.folder / f"by-hand-{number}.png")

    def _drawn(self, side: int) -> list[str]:
        """Pictures to edit, of the size that the model takes: discs of different colours."""
        from PIL import Image, ImageDraw

        side = side or min(self._card.size_px or (512,))
        paths = [self.folder / f"drawn-{number}.png" for number in range(32)]
        for number, path in enumerate(paths):
            image = Image.new("RGB", (side, side), (8 * number, 160, 250 - 7 * number))
            ImageDraw.Draw(image).ellipse(
                (side // 4, side // 4, side * 3 // 4, side * 3 // 4), "red"
            )
            image.save(path)
        return [str(path) for path in paths]


def _guides(pipe: Any) -> bool:
    """Whether a pipeline guides by a second, negative prompt unless it is told otherwise."""
    scale = inspect.signature(pipe.__call__).parameters.get("true_cfg_scale")
    return scale is not None and (scale.default or 1) > 1


def table(ways: Ways, batches: list[int], rounds: int, names: list[str]) -> None:
    others = names[1:]
    print(f"\n{'':6}{'images/s':>{10 * len(names)}}{'nbimg beside':>{12 + 10 * (len(others) - 1)}}")
    print(f"{'batch':6}" + "".join(f"{name:>10}" for name in names)
          + f"{others[0]:>12}" + "".join(f"{name:>10}" for name in others[1:]))  # fmt: skip
    for images in batches:
        works: dict[str, Callable[[int], None]] = {
            name: getattr(ways, name.replace(" ", "_")) for name in names
        }
        for work in works.values():
            work(images)
        taken = [
            {name: seconds(work, images, ways.clock) for name, work in turn(works, k)}
            for k in range(rounds)
        ]
        rates = [images / statistics.median(row[name] for row in taken) for name in works]
        ratios = [statistics.median(row[name] / row["nbimg"] for row in taken) for name in others]
        print(f"{images:<6}" + "".join(f"{rate:10.2f}" for rate in rates)
              + f"{ratios[0]:12.2f}" + "".join(f"{ratio:10.2f}" for ratio in ratios[1:]), flush=True)  # fmt: skip


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


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
