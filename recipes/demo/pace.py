"""One thread or two: measured now and then, since other work comes and goes on a machine."""

import time
from collections.abc import Callable

import torch


class Pace:
    """Runs steps with the number of threads that was faster last time.

    Two threads that wait for a core someone else holds are slower than one; only a clock tells.
    """

    def __init__(self, most: int = 2, every: int = 100, probe: int = 2) -> None:
        """Use at most `most` threads and measure `probe` steps of each every `every` steps."""
        self.most, self.every, self.probe = most, every, probe
        self.times: dict[int, float] = {}
        torch.set_num_threads(most)

    def run(self, one: Callable[[int], float], step: int) -> float:
        """Run step number `step` and return its loss."""
        place = step % self.every
        turn = place // self.probe
        if self.most < 2 or turn >= self.most:
            return one(step)
        threads = self.most - turn
        if place % self.probe == 0:
            torch.set_num_threads(threads)
            self.times[threads] = 0.0
        start = time.monotonic()
        loss = one(step)
        self.times[threads] += time.monotonic() - start
        if place == self.most * self.probe - 1:
            torch.set_num_threads(min(self.times, key=lambda number: self.times[number]))
        return loss
