"""What the pictures look like so far, a few times a second, for next to no time.

Stage: inside the loop of a pipeline. Comes in: the latents after each step. Goes out: small WebP pictures,
as events. Must not: cost more than a small share of the time, or ever fail a generation.

What a sampler hands over is a mixture of picture and noise. Of two such mixtures in a row, whose shares the
sampler knows, the picture can be solved for: shapes show after a few steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from nbimg.events import Event, Preview
from nbimg.local import colours
from nbimg.local.device import needed
from nbimg.media import pixels

__all__ = ["Previews"]

#: Shortest time between two previews, in seconds.
EVERY_S = 0.3
#: Of how many images of a batch there are previews at most.
FIRST = 4
#: Most of the time that previews may take.
SHARE = 0.02
#: Longest side of a preview in pixels.
SIDE_PX = 256
log = logging.getLogger("nbimg")


class Previews:
    """The previews of one call of a pipeline.

    Args:
        pipe: The pipeline.
        report: Told each preview, with the position of its image.
        ratio: Width through height of the images; None: square. Latents that are packed into a line do
            not tell it.
    """

    def __init__(
        self, pipe: Any, report: Callable[[int, Event], None], ratio: float | None = None
    ) -> None:
        self._pipe, self._report, self._ratio = pipe, report, ratio or 1.0
        self._begun_s = self._last_s = time.monotonic()
        self._spent_s = 0.0
        self._before: tuple[int, Any] | None = None
        self._dead = False

    def step(self, index: int, latents: Any) -> None:
        """Show the images after step `index` (0-based), if it is time to.

        Args:
            index: Which step has ended.
            latents: As the callback of the pipeline has them, one row an image.
        """
        if self._dead or latents is None:
            return
        try:
            self._show(index, latents)
        except Exception:  # a preview that cannot be made is no reason to lose the image
            log.debug("no previews of %s", type(self._pipe).__name__, exc_info=True)
            self._dead, self._before = True, None

    def _show(self, index: int, latents: Any) -> None:
        before, self._before = self._before, (index, latents)
        now_s = time.monotonic()
        if now_s - self._last_s < EVERY_S:
            return
        decoder = colours.find_decoder(self._pipe)
        allowed_s = SHARE * (now_s - self._begun_s) - self._spent_s
        count = min(FIRST, len(latents), _times(allowed_s, decoder.seconds_each))
        if count < 1:
            return
        torch, _ = needed()
        if latents.is_cuda:
            torch.cuda.synchronize(latents.device)  # what is waited for is not the preview's time
        begun_s = time.monotonic()
        with torch.no_grad():
            shown = latents[:count]
            if before is not None and before[0] == index - 1:
                shown = _solved(self._pipe.scheduler, before[1][:count], shown)
            made = decoder(self._pipe, shown, self._ratio)
            levels = made.float().clamp(0, 1).mul(255).round().byte()
        for position, picture in enumerate(levels.permute(0, 2, 3, 1).cpu()):
            self._report(position, Preview(data=_encoded(picture)))
        self._last_s = time.monotonic()
        self._spent_s += self._last_s - begun_s
        decoder.took((self._last_s - begun_s) / count)


def _times(allowed_s: float, each_s: float | None) -> int:
    return 1 if each_s is None else int(allowed_s // max(each_s, 1e-6))


def _encoded(picture: Any) -> bytes:
    image = pixels.to_pil(picture.numpy())
    if max(image.size) > SIDE_PX:
        image.thumbnail((SIDE_PX, SIDE_PX))
    return pixels.encode(image, "image/webp", quality=70)


def _solved(scheduler: Any, before: Any, after: Any) -> Any:
    """Return the picture in two mixtures of picture and noise, before and after a step.

    With x = a·picture + s·noise at two times, the picture is (s1·x2 - s2·x1) / (s1·a2 - s2·a1). A sampler
    that adds noise of its own, or tells no shares, gives what it has.
    """
    at, sigmas = getattr(scheduler, "step_index", None), getattr(scheduler, "sigmas", None)
    if not at or sigmas is None or at >= len(sigmas):
        return after
    earlier, later = _shares(scheduler, sigmas[at - 1]), _shares(scheduler, sigmas[at])
    if earlier is None or later is None:
        return after
    (a1, s1), (a2, s2) = earlier, later
    below = s1 * a2 - s2 * a1
    if abs(below) < 1e-6:
        return after
    return ((s1 * after.float() - s2 * before.float()) / below).to(after.dtype)


def _shares(scheduler: Any, sigma: Any) -> tuple[float, float] | None:
    """How much picture and how much noise there is at `sigma`."""
    config, name = scheduler.config, type(scheduler).__name__
    if config.get("stochastic_sampling") or "sde" in str(config.get("algorithm_type")):
        return None
    if name == "FlowMatchEulerDiscreteScheduler":
        return 1 - float(sigma), float(sigma)
    if name == "EulerDiscreteScheduler":
        return 1.0, float(sigma)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        picture, noise = scheduler._sigma_to_alpha_sigma_t(sigma)  # noqa: SLF001  # the only way to ask
        return float(picture), float(noise)
    return None
