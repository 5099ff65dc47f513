"""The notebook's own machine: diffusers pipelines, and the one that ships with nbimg.

Stage: a local backend. Comes in: calls that can share a call of a pipeline. Goes out: images, as each
micro-batch ends. One worker thread a device does all loading and running there: two cells never run one
pipeline at once. Must not: import torch before a model is used, or fetch a model unasked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nbimg.backends.base import Call, Context, LocalBackend
from nbimg.errors import OfflineError, SetupError, UnknownNameError
from nbimg.events import Event, Notice
from nbimg.local import batch, download, manifest, shelf
from nbimg.local.batch import Bench, Made
from nbimg.local.capabilities import read_capabilities
from nbimg.local.device import find_device
from nbimg.local.families import Task
from nbimg.local.manifest import Manifest
from nbimg.local.memory import Sizes, forget
from nbimg.local.pipelines import Pipelines, Row, readable_size
from nbimg.local.previews import Previews
from nbimg.local.speed import tuned
from nbimg.media import pixels
from nbimg.types import Capabilities, EncodedImage

__all__ = ["DemoBackend", "DiffusersBackend", "demo_folder", "loaded", "unload"]

log = logging.getLogger("nbimg")

_pipelines = Pipelines()
_sizes = Sizes()
_workers: dict[str, ThreadPoolExecutor] = {}
#: Pictures become files beside the device's work, several at once: a large PNG takes half a second.
_encoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="nbimg-encode")
_starting = threading.Lock()

Tell = Callable[[str], None]


def loaded() -> tuple[Row, ...]:
    """Return the models that are in memory, the last used first."""
    return _pipelines.rows()


def unload(name: str | None = None) -> tuple[Row, ...]:
    """Let a model go, or all, and give the memory back; it waits for what runs there.

    Args:
        name: `demo`, or `local:` and its folder or hub id; None: all.

    Returns:
        What was let go.

    Raises:
        UnknownNameError: When it is not loaded.
    """
    names = [row.name for row in loaded()]
    if name is not None and name not in names:
        if f"local:{name}" not in names:
            raise UnknownNameError("loaded model", name, known=names, hint="%imgmodels lists them.")
        name = f"local:{name}"
    gone: list[Row] = []
    for device in sorted({row.device for row in loaded()}):
        gone += _worker(device).submit(_pipelines.unload, name, device=device).result()
    return tuple(gone)


def _worker(device: str) -> ThreadPoolExecutor:
    """The one thread that loads and runs on a device."""
    with _starting:
        if device not in _workers:
            _workers[device] = ThreadPoolExecutor(1, thread_name_prefix=f"nbimg-{device}")
        return _workers[device]


@dataclass(frozen=True)
class _Order:
    """What the worker thread is given."""

    calls: Sequence[Call]
    device: str
    report: Callable[[int, Event], None]
    stop: threading.Event

    def tell(self, line: str) -> None:
        """Tell the reader a line."""
        self.report(0, Notice(text=line))


class DiffusersBackend(LocalBackend):
    """`local:FOLDER` or `local:OWNER/NAME`: what `DiffusionPipeline.from_pretrained` can load."""

    name = "local"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._looked: dict[str, download.Wanted] = {}

    def manifest(self, model: str) -> Manifest:
        """Read what the model's folder says about itself; of one to be fetched, what the hub says.

        Raises:
            UnknownNameError: When there is no such model.
            OfflineError: When it is not on this machine, and nothing may leave it.
            SetupError: When it would have to be fetched, which nobody has allowed.
        """
        name = f"local:{model}"
        wanted = self._wanted(model)
        if wanted is None:
            return manifest.read(manifest.find_folder(model), name)
        if not self.context.settings.get("download"):
            raise SetupError(
                f"{name} is not on this machine: {readable_size(wanted.size_bytes)} to download.",
                hint=f"Allow it: %imgmodels --load {name}, or %config NbImg.download = True.",
            )
        return manifest.read(wanted.folder, name)

    def _wanted(self, model: str) -> download.Wanted | None:
        """What is still to be fetched of a model; None: it is here, or no model of the hub."""
        if Path(model).expanduser().is_dir() or not shelf.is_hub_id(model):
            return None
        found = shelf.snapshot(model)
        if found is not None and shelf.whole(found):
            return None
        if self.context.settings.get("offline"):
            raise OfflineError(
                f"NbImg.offline is set, and {model} is not on this machine.",
                hint="%config NbImg.offline = False, or take a folder.",
            )
        if model not in self._looked:
            self._looked[model] = download.look(model, self._endpoint)
        return self._looked[model]

    @property
    def _endpoint(self) -> str | None:
        """Of the hub, where it is not the usual one."""
        found = self.context.settings.provider("local", "base_url")
        return None if found is None else str(found)

    async def capabilities(self, model: str) -> Capabilities:
        """Return what the pipeline's class and the folder's own file say."""
        card = await asyncio.to_thread(self.manifest, model)
        return await asyncio.to_thread(read_capabilities, card)

    def share_key(self, call: Call) -> Hashable:
        """Calls share a call of the pipeline when only prompts, images, size and seed differ."""
        arguments = {k: v for k, v in call.arguments.items() if k not in _APART}
        return (call.ref.model, _task(call), repr(sorted(arguments.items())))

    async def generate(
        self, calls: Sequence[Call], report: Callable[[int, Event], None]
    ) -> AsyncIterator[tuple[int, EncodedImage]]:
        """Make the images on the worker thread; each is encoded while the next ones are made."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[tuple[Made, Future[bytes]] | Exception | None] = asyncio.Queue()
        device = await asyncio.to_thread(find_device, self.context.settings.get("device"))
        stop = threading.Event()

        def tell(position: int, event: Event) -> None:
            loop.call_soon_threadsafe(report, position, event)

        def work() -> None:
            ended: Exception | None = None
            try:
                if not stop.is_set():  # Stop may have come while another cell ran
                    for made in self._made(_Order(calls, device, tell, stop)):
                        data = _encoders.submit(pixels.encode, made.image, "image/png")
                        loop.call_soon_threadsafe(ready.put_nowait, (made, data))
            except batch.StoppedError:
                pass
            except Exception as error:  # handed over without what its frames hold
                log.debug("%s", "".join(traceback.format_exception(error)))
                forget(error)
                ended = error
            finally:
                with contextlib.suppress(RuntimeError):  # the loop may be gone
                    loop.call_soon_threadsafe(ready.put_nowait, ended)

        loop.run_in_executor(_worker(device), work)
        try:
            while (item := await ready.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                made, encoding = item
                yield (
                    made.position,
                    EncodedImage(
                        await asyncio.wrap_future(encoding),
                        made.seed,
                        encoded_here=True,
                        peak_memory_bytes=made.peak_bytes,
                        device_s=made.device_s,
                    ),
                )
        finally:
            stop.set()

    def _made(self, order: _Order) -> Iterator[Made]:
        """Load what is needed and run it; on the worker thread."""
        task, model = _task(order.calls[0]), order.calls[0].ref.model
        settings = self.context.settings
        card = self._here(model, order.tell, order.stop.is_set)
        number = settings.get("dtype")
        kept, pipe = _pipelines.take(card, task, order.device, number, order.tell)
        tuned(pipe, settings, order.device)

        def relieve(*, alone: bool) -> str | None:
            if others := _pipelines.clear_others(kept):
                return f"{', '.join(others)} left the memory"
            done = kept.relief.next(pipe) if alone else None
            kept.ready(pipe)
            return done

        watch = Previews if settings.get("preview") else None
        bench = Bench(kept.device, _sizes, f"{card.name} {number} {kept.placing}", relieve, watch)
        defaults = card.tasks.get(task, {})
        return batch.run(pipe, order.calls, defaults, card.size_px, order.report, order.stop, bench)

    def _here(self, model: str, tell: Tell, stopped: Callable[[], bool]) -> Manifest:
        """Return the card of a model whose files are all on this machine, fetched where that is allowed."""
        card = self.manifest(model)
        if (wanted := self._wanted(model)) is None:
            return card
        folder = download.fetch(wanted, tell, stopped, self._endpoint)
        self._looked.pop(model, None)
        return manifest.read(folder, card.name)

    def load(self, model: str, tell: Tell) -> Row:
        """Load a model now, and fetch it before where that is needed; for `%imgmodels --load`.

        Args:
            model: A folder or a hub id.
            tell: Told in words how it goes.

        Raises:
            NbimgError: When there is no such model, or it cannot be fetched or loaded.
        """
        settings = self.context.settings
        device = find_device(settings.get("device"))

        def work() -> str:
            wanted = self._wanted(model)
            if wanted is not None:  # naming it is the permission
                download.fetch(wanted, tell, lambda: False, self._endpoint)
                self._looked.pop(model, None)
            card = self.manifest(model)
            _pipelines.load(card, device, settings.get("dtype"), tell)
            return card.name

        name = _worker(device).submit(work).result()
        return next(row for row in loaded() if row.name == name)


class DemoBackend(DiffusersBackend):
    """`demo`: the model that ships with nbimg, loaded by the same code as any other folder."""

    name = "demo"

    def manifest(self, model: str) -> Manifest:  # noqa: ARG002  # it has only one
        """Read the card of the model in the package."""
        return manifest.read(demo_folder(), "demo")

    def _wanted(self, model: str) -> None:  # noqa: ARG002
        return None


def demo_folder() -> Path:
    """Return where the weights that ship with nbimg are."""
    return Path(str(resources.files("nbimg.local").joinpath("demo", "weights")))


#: Arguments that calls may differ in and still share a call of the pipeline.
_APART = ("seed", "negative_prompt", "width", "height")


def _task(call: Call) -> Task:
    """What a call asks of a pipeline."""
    if call.mask is not None:
        return "inpaint"
    if len(call.images) > 1:
        return "combine"
    return "edit" if call.images else "generate"
