"""What a step of a large model costs on a card, batch by batch, and what the settings bring.

Networks of the size of Stable Diffusion 1.5, SDXL and Qwen-Image-Edit with random weights in bfloat16: time
a step, images a second, and the share of the fastest matrix product that this card does here and now.
Then one step of the first batch once more under each setting of nbimg that does not change the picture.

    python benchmarks/networks.py [--networks sd15,sdxl,qwen-512,qwen] [--batches 1,2,4,8,16] [--settings]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weights import NETWORKS, Network, at_home

#: Side of a matrix product that keeps any card busy, and how often it is done.
MATMUL_SIDE, MATMUL_ROUNDS = 8192, 20
#: No measurement takes much longer than this, in seconds, nor more rounds.
LONGEST_S, MOST = 2.0, 10
#: A backend of attention that comes with torch.
CUDNN = "_native_cudnn"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batches", default="1,2,4,8,16")
    parser.add_argument("--settings", action="store_true", help="also under each setting")
    known = parser.parse_args()
    import torch

    peak = matmul_peak(known.device)
    name = torch.cuda.get_device_name(known.device) if known.device != "cpu" else "processor"
    print(f"{name}: {peak / 1e12:.0f} TFLOP/s in a matrix product of {MATMUL_SIDE}, bf16; "
          f"torch {torch.__version__}", flush=True)  # fmt: skip
    for key in known.networks.split(","):
        network = NETWORKS[key]()
        with at_home(known.device):
            model = network.make().eval().requires_grad_(requires_grad=False)
        sweep(network, model, known.device, [int(b) for b in known.batches.split(",")], peak)
        if known.settings:
            under_settings(network, model, known.device)
        del model
        torch.compiler.reset()
        if known.device != "cpu":
            torch.cuda.empty_cache()


def sweep(network: Network, model: Any, device: str, batches: list[int], peak: float) -> None:
    """Print a line for each batch, until memory runs out or a step takes too long to tell more."""
    import torch

    print(f"\n{network.name:30}{'ms a step':>12}{'images x steps/s':>18}{'beside batch 1':>16}"
          f"{'TFLOP/s':>10}{'of peak':>9}")  # fmt: skip
    first = 0.0
    for batch in batches:
        with at_home(device), torch.inference_mode():
            try:
                given = network.given(batch)
                work = flops(model, given)
                took = step_seconds(model, given, device)
            except torch.OutOfMemoryError:
                print(f"{f'batch {batch}':30}{'out of memory':>12}")
                return
        rate, first = work / took, first or took / batches[0]
        print(f"{f'batch {batch}':30}{took * 1000:12.1f}{batch / took:18.2f}"
              f"{first * batch / took:16.2f}{rate / 1e12:10.0f}{rate / peak:9.0%}", flush=True)  # fmt: skip
        if took > LONGEST_S:
            return


def under_settings(network: Network, model: Any, device: str) -> None:
    """Print what a step of one image takes under each setting, and how far its output is off."""
    import torch

    from nbimg.config import Settings
    from nbimg.local.speed import tuned

    pipe = Pipe(model)
    convolves = "UNet" in type(model).__name__
    free: dict[str, Any] = {"channels_last": "on"} if convolves else {"attention": CUDNN}
    ways: list[dict[str, Any]] = [{}, free, {**free, "compile": True}]
    with at_home(device), torch.inference_mode():
        given = network.given(1)
        plain, plain_s = None, 0.0
        for way in ways:
            settings = Settings({})
            for name, value in {"channels_last": "off", **way}.items():
                settings.set(name, value)
            begun = time.perf_counter()
            tuned(pipe, settings, device)
            made = model(**given)[0].float()
            made.sum().item()  # waits for it
            first_s = time.perf_counter() - begun
            took = step_seconds(model, given, device)
            if plain is None:
                plain, plain_s = made, took
            off = float((made - plain).norm() / plain.norm())
            said = " ".join(f"{name}={value}" for name, value in way.items()) or "as it is"
            print(f"  {said:28}{took * 1000:12.1f} ms{plain_s / took:8.2f} x{first_s:8.1f} s the first"
                  f"   output off by {off:.1e}", flush=True)  # fmt: skip


class Pipe:
    """All that is needed of a pipeline to prepare its network."""

    def __init__(self, network: Any) -> None:
        self.unet = network if "UNet" in type(network).__name__ else None
        self.transformer = None if self.unet is not None else network


def flops(model: Any, given: dict[str, Any]) -> int:
    """Return the floating-point operations of a step: products of matrices, convolutions, attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(**given)
    return int(counter.get_total_flops())


def step_seconds(model: Any, given: dict[str, Any], device: str) -> float:
    """Return the seconds of one step, the median of several."""
    return timed(lambda: model(**given), device, MOST)


def matmul_peak(device: str) -> float:
    """Return the floating-point operations a second of a large matrix product in bfloat16."""
    import torch

    side = MATMUL_SIDE if device != "cpu" else 1024
    one, other = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / timed(lambda: one @ other, device, MATMUL_ROUNDS)


def timed(work: Callable[[], Any], device: str, rounds: int) -> float:
    """Return the median seconds of a piece of work on a device, after warming up."""
    from nbimg.local.device import Device

    place, took = Device(device), []
    for number in range(rounds + 2):
        place.finish()
        begun = time.perf_counter()
        work()
        place.finish()
        if number > 1 or rounds == 1:
            took.append(time.perf_counter() - begun)
        if sum(took) > LONGEST_S:
            break
    return statistics.median(took)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
