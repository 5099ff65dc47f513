"""The model that ships with nbimg: 8 images in one call, beside 8 calls of one image.

Both go the whole way, from the request to the file on disk, and again with diffusers alone.

    python benchmarks/demo.py [--images 8] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import nbimg
from nbimg import session

PROMPT = "a red house at night"


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def diffusers_alone(images: int, together: bool) -> Callable[[], object]:
    """Return the same pictures by hand, with the same pipeline, steps and guidance."""
    import torch

    from nbimg.backends.local import demo_folder
    from nbimg.local import manifest, pipelines

    card = manifest.read(demo_folder())
    pipe = pipelines.Pipelines().get(card, "generate", "cpu", None)
    defaults = card.tasks["generate"]
    arguments = {k: v for k, v in defaults.items() if k != "image_guidance_scale"}

    def generator(seed: int) -> torch.Generator:
        return torch.Generator("cpu").manual_seed(seed)

    def work() -> None:
        if together:
            pipe([PROMPT] * images, generator=[generator(k) for k in range(images)], **arguments)
            return
        for k in range(images):
            pipe(PROMPT, generator=generator(k), **arguments)

    return work


def main() -> None:
    """Run each in turn and print images a second and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    known = parser.parse_args()
    n = known.images
    session.default().settings.set("output_dir", tempfile.mkdtemp(prefix="nbimg-bench-"))
    works: dict[str, Callable[[], object]] = {
        f"nbimg, {n} in one call": lambda: nbimg.generate(PROMPT, model="demo", n=n, cache=False),
        f"nbimg, {n} calls of one": lambda: [
            nbimg.generate(PROMPT, model="demo", seed=k, cache=False) for k in range(n)
        ],
        f"diffusers, {n} in one call": diffusers_alone(n, together=True),
        f"diffusers, {n} calls of one": diffusers_alone(n, together=False),
    }
    for work in works.values():
        work()
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(known.rounds)]
    middle = {name: statistics.median(row[name] for row in rounds) for name in works}
    for name, taken in middle.items():
        print(f"{name:28} {taken:6.2f} s  {n / taken:6.2f} images/s  {taken / n:5.2f} s an image")
    one, each, bare, loop = works
    for left, right, text in (
        (each, one, "one call instead of many, nbimg"),
        (loop, bare, "one call instead of many, diffusers"),
        (bare, one, "nbimg's speed beside diffusers alone, one call"),
    ):
        ratio = statistics.median(row[left] / row[right] for row in rounds)
        print(f"{text:48} {ratio:5.2f} x")


if __name__ == "__main__":
    main()
