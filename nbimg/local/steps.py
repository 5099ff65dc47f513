"""The steps of one call of a pipeline: told, shown, and the places to leave it.

Stage: inside the loop of a pipeline. Comes in: what its callback says, or how often its network is called.
Goes out: events; `StoppedError` after Stop. Must not: change what the pipeline does.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbimg.events import Event, Step
from nbimg.local.arguments import Bucket, Member

__all__ = ["Report", "Steps", "StoppedError", "Watch", "network_of"]

Report = Callable[[int, Event], None]
#: Makes what is told the latents after each step: pipeline, reporter, width through height.
Watch = Callable[[Any, Report, float], Any]


class StoppedError(Exception):
    """Raised inside a pipeline to leave it between two steps."""


class Steps:
    """Tells of the steps of one call, and leaves it between two of them after Stop.

    Args:
        pipe: The pipeline.
        part: The calls that share the call.
        report: Told about steps, with the position of a call.
        stop: Set by Stop.
        bucket: Where the size of the images is.
        watch: Makes the previews; None: there are none.

    Attributes:
        total: How many steps there are.
    """

    def __init__(
        self,
        pipe: Any,
        part: Sequence[Member],
        report: Report,
        stop: threading.Event,
        bucket: Bucket,
        watch: Watch | None,
    ) -> None:
        self.total = 1
        self._pipe, self._part, self._report, self._stop = pipe, part, report, stop
        self._previews = None
        if watch is not None:
            self._previews = watch(pipe, self._of_row, bucket.width / max(1, bucket.height))

    @contextlib.contextmanager
    def counted(self, given: dict[str, Any]) -> Iterator[None]:
        """Have the steps of the call with these arguments counted inside."""
        taken = inspect.signature(self._pipe.__call__).parameters
        default = taken["num_inference_steps"].default if "num_inference_steps" in taken else None
        self.total = int(given.get("num_inference_steps") or default or 1)
        self._tell(0)
        if "callback_on_step_end" in taken:
            given["callback_on_step_end"] = self._ended
            yield
            return
        network = network_of(self._pipe)
        if network is None:
            yield
            return
        hook = network.register_forward_pre_hook(self._begun(), with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _ended(self, pipe: Any, index: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        number = getattr(pipe, "num_timesteps", None)  # fewer than asked where strength is below 1
        if isinstance(number, int) and number > index:
            self.total = number
        self._tell(index + 1)
        if self._previews is not None and index + 1 < self.total:
            self._previews.step(index, values.get("latents"))
        return values

    def _begun(self) -> Callable[..., None]:
        """Return a hook that counts by the times at which the network is called."""
        times: list[float] = []

        def begun(_network: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            at: Any = named.get("timestep", given[1] if len(given) > 1 else None)
            at = float(at.flatten()[0]) if hasattr(at, "flatten") else float(at or len(times))
            if not times or times[-1] != at:  # guidance may call it twice a step
                times.append(at)
                self._tell(min(len(times) - 1, self.total))

        return begun

    def _tell(self, done: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        for position, _ in self._part:
            self._report(position, Step(done=done, total=self.total))

    def _of_row(self, row: int, event: Event) -> None:
        self._report(self._part[row][0], event)


def network_of(pipe: Any) -> Any:
    """Return what is called once a step, or None."""
    names = ("transformer", "unet", "decoder", "prior")
    return next((found for name in names if (found := getattr(pipe, name, None)) is not None), None)
