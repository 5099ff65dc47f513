"""The loop of both trainings: steps until the time is up, a falling rate, reports, checkpoints."""

import time
from collections.abc import Callable

import torch

from recipes.demo.pace import Pace

TELL_EVERY_S = 60.0
SAVE_EVERY_S = 150.0


def run(
    one: Callable[[int], float],
    optimiser: torch.optim.Optimizer,
    *,
    minutes: float,
    rate: Callable[[int, float], float],
    save: Callable[[int], None],
    tell: Callable[[], str] = str,
) -> int:
    """Train for some minutes.

    Args:
        one: Does one step, given its number from 0, and returns its loss.
        optimiser: Whose rate is set before each step.
        minutes: Wall time.
        rate: The learning rate, from the number of the step and the part of the time that is
            over (0-1).
        save: Keeps everything, given the number of steps done; every few minutes and at the end.
        tell: More words for the reports.

    Returns:
        The number of steps done.
    """
    pace = Pace()
    begun = told = saved = time.monotonic()
    losses: list[float] = []
    step = 0
    while (part := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate(step, part)
        losses.append(pace.run(one, step))
        step += 1
        now = time.monotonic()
        if now - told > TELL_EVERY_S:
            print(
                f"{step} steps, {(now - begun) / 60:.0f} min, loss "
                f"{sum(losses) / len(losses):.4f}, {(now - told) / len(losses):.3f} s/step, "
                f"{torch.get_num_threads()} threads {tell()}",
                flush=True,
            )
            told = now
            losses.clear()
        if now - saved > SAVE_EVERY_S:
            saved = now
            save(step)
    save(step)
    return step
