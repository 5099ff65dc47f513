"""What the benchmarks of the engine share: a local server, and three ways to make the same images with it.

- `bare`: an asyncio + httpx loop as a person writes it. It retries nothing, keeps no journal, flushes nothing.
- `official`: the `replicate` client in an asyncio gather with a semaphore, at its own defaults.
- `nbimg`: the same through `nbimg.batch`.

Each way runs in a process of its own, so that seconds of processor time and peak memory are its alone, after a
few tasks to warm up (connections, lazy imports). The server runs in another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MODEL = "black-forest-labs/flux-dev"
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Work:
    """A batch of images.

    Attributes:
        tasks: How many.
        at_once: How many are under way at a time.
        poll_s: Between two looks at a job, for `bare` and `official`; nbimg finds its own pace.
        hold: Whether `official` lets the server hold its creates open, as it does by itself.
        rate: The window of creates that nbimg keeps, `COUNT/SECONDSs`.
        reads: Its window of all other requests.
        warm: How many tasks go before, unmeasured.
        trace: Whether Python's own allocations are followed, which is slow.
        again: Whether the same batch is made once more in the same folder, measured too.
    """

    tasks: int
    at_once: int = 32
    poll_s: float = 0.0
    hold: bool = False
    rate: str = "1000000/1s"
    reads: str = "1000000/1s"
    warm: int = 20
    trace: bool = False
    again: bool = False

    @property
    def numbers(self) -> range:
        """The tasks, which name their files."""
        return range(1, self.tasks + 1)


@dataclass(frozen=True)
class Measure:
    """What a way took.

    Attributes:
        seconds: By the clock on the wall.
        cpu_s: Of the client's process, all threads.
        peak_bytes: Most memory of the process at any time.
        traced_bytes: Most that Python's allocator held, above what it held before; 0 without `trace`.
        lost: Tasks without a file.
        refused: Calls that the server answered with 429.
        creates: Jobs that the server accepted.
        again_s: Seconds of the second time.
        cached: How many of its results came from the store.
    """

    seconds: float
    cpu_s: float
    peak_bytes: int
    traced_bytes: int = 0
    lost: int = 0
    refused: int = 0
    creates: int = 0
    again_s: float = 0.0
    cached: int = 0


@dataclass
class Server:
    """The local server, seen from this process."""

    base: str
    token: str
    pipe: Connection = field(repr=False)

    def counts(self) -> tuple[int, int]:
        """Return how many jobs it accepted and how many calls it refused so far."""
        self.pipe.send("counts")
        accepted, refused = self.pipe.recv()
        return accepted, refused


def _serve(pipe: Connection, knobs: dict[str, Any]) -> None:
    from nbimg.testing import ReplicateServer

    class Counting(ReplicateServer):
        refused = 0

        def _throttled(self, wait_s: int, low: bool) -> Any:
            self.refused += 1
            return super()._throttled(wait_s, low)

    with Counting(**knobs) as server:
        pipe.send((server.base_url, server.token))
        while pipe.recv() == "counts":
            pipe.send((len(server.jobs), server.refused))


@contextlib.contextmanager
def serving(**knobs: Any) -> Iterator[Server]:
    """Run a local Replicate in a process of its own; without limits and waits unless told otherwise."""
    quick = {"create_limit": None, "other_limit": None, "starting_s": 0, "running_s": 0}
    near, far = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(far, {**quick, **knobs}))
    process.start()
    try:
        yield Server(*near.recv(), near)
    finally:
        near.send("stop")
        process.join()


def measure(way: str, work: Work, server: Server) -> Measure:
    """Make the images of `work` in one of the three ways, in a fresh process and folder."""
    folder = Path(tempfile.mkdtemp(prefix="nbimg-bench-"))
    before = server.counts()
    near, far = _SPAWN.Pipe()
    args = (far, way, work, server.base, server.token, folder)
    process = _SPAWN.Process(target=_child, args=args)
    process.start()
    far.close()  # so that a child that dies is heard
    try:
        measured: Measure = near.recv()
        process.join()
        after = server.counts()
        made = sum((folder / f"{number}.webp").stat().st_size > 0 for number in _made(folder, work))
    finally:
        shutil.rmtree(folder)
    return replace(
        measured,
        lost=work.tasks - made,
        creates=after[0] - before[0] - work.warm,
        refused=after[1] - before[1],
    )


def _made(folder: Path, work: Work) -> Iterator[int]:
    return (number for number in work.numbers if (folder / f"{number}.webp").is_file())


def _child(pipe: Connection, way: str, work: Work, base: str, token: str, folder: Path) -> None:
    os.environ.update(
        NBIMG_REPLICATE_BASE_URL=base,
        REPLICATE_API_TOKEN=token,
        NBIMG_REPLICATE_RATE=work.rate,
        NBIMG_REPLICATE_READ_RATE=work.reads,
        REPLICATE_POLL_INTERVAL=str(work.poll_s),
    )
    make = WAYS[way]
    if work.warm:
        warm = folder / "warm"
        warm.mkdir()
        make(replace(work, tasks=work.warm), base, token, warm)
    if work.trace:
        tracemalloc.start()
    began, cpu = time.perf_counter(), time.process_time()
    kept = make(work, base, token, folder)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    traced = tracemalloc.get_traced_memory()[1] if work.trace else 0
    peak = peak_bytes()
    again_s, cached = 0.0, 0
    del kept
    if work.again:
        began = time.perf_counter()
        results = make(work, base, token, folder)
        again_s = time.perf_counter() - began
        cached = sum(result.cached for result in results or ())
    pipe.send(Measure(seconds, cpu_s, peak, traced, again_s=again_s, cached=cached))


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except OSError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bare(work: Work, base: str, token: str, folder: Path) -> None:
    asyncio.run(_bare_loop(work, base, token, folder))


async def _bare_loop(work: Work, base: str, token: str, folder: Path) -> None:
    import httpx

    permits = asyncio.Semaphore(work.at_once)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=60) as client:

        async def one(number: int) -> None:
            async with permits:
                url = f"{base}/v1/models/{MODEL}/predictions"
                body = {"input": {"prompt": f"task {number}", "seed": number}}
                reply = await client.post(url, json=body, headers=headers)
                job = reply.raise_for_status().json()
                while job["status"] not in ("succeeded", "failed", "canceled"):
                    await asyncio.sleep(work.poll_s)
                    url = f"{base}/v1/predictions/{job['id']}"
                    job = (await client.get(url, headers=headers)).raise_for_status().json()
            image = await client.get(job["output"][0])
            (folder / f"{number}.webp").write_bytes(image.content)

        await asyncio.gather(*map(one, work.numbers), return_exceptions=True)


def _official(work: Work, base: str, token: str, folder: Path) -> None:
    asyncio.run(_official_loop(work, base, token, folder))


async def _official_loop(work: Work, base: str, token: str, folder: Path) -> None:
    import replicate
    from replicate.helpers import FileOutput

    permits = asyncio.Semaphore(work.at_once)
    client = replicate.Client(api_token=token, base_url=base)

    async def one(number: int) -> None:
        async with permits:
            inputs = {"prompt": f"task {number}", "seed": number}
            output = await client.async_run(MODEL, input=inputs, wait=work.hold)
        image = FileOutput(str(output[0]), client)  # it makes them of https addresses only
        (folder / f"{number}.webp").write_bytes(await image.aread())

    await asyncio.gather(*map(one, work.numbers), return_exceptions=True)
    await client._async_client.aclose()  # noqa: SLF001  # it has no public way to close


def _nbimg(work: Work, base: str, token: str, folder: Path) -> Any:  # noqa: ARG001  # by its settings
    import nbimg
    from nbimg import session

    session.default().settings.set("output_dir", str(folder))
    texts, seeds = [f"task {number}" for number in work.numbers], list(work.numbers)
    return nbimg.batch(
        texts, model="flux-dev", seed=seeds, output="{index}.webp", concurrency=work.at_once
    )


WAYS: dict[str, Callable[[Work, str, str, Path], Any]] = {
    "bare": _bare,
    "official": _official,
    "nbimg": _nbimg,
}
#: How the tables call them.
TITLES = {"bare": "bare httpx loop", "official": "replicate client", "nbimg": "nbimg"}
