"""What lies between a provider's own time and the picture on disk, beside the official client in the same run.

First: 100 jobs of a few seconds each, so many at once, against a local Replicate with its documented limits.
Lag is what passes between the end of a job at the provider and the request for its picture, as the server
sees it; requests are those to the API. Three ways, each in a process of its own: `predictions.create` and
`wait`, the `run` that the server holds open, and `nbimg.batch`.

Then: the same number of jobs while things go wrong, by one script for all: connections that drop before and
after acceptance, pages of a proxy, cut answers, 429s, states that are rare, spoilt downloads. Every way is run,
and run once more for what has no picture then, as a person would. Counted by the server: jobs that were paid
and whose picture nobody fetched, pictures that were paid twice, requests that showed the key to another
host; and by the client: errors that its documentation does not name.

    python benchmarks/providers.py            about two minutes
    python benchmarks/providers.py --jobs 20  a quick look
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MODEL = "black-forest-labs/flux-dev"
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Work:
    """A batch.

    Attributes:
        jobs: How many.
        at_once: How many are under way at a time.
        seconds: How long one takes at the provider, on average.
        spread: By how much that varies, as a share.
        warm: So many go before, unmeasured, as in a kernel that has worked before.
    """

    jobs: int
    at_once: int
    seconds: float
    spread: float
    warm: int = 0


# ---------------------------------------------------------------------- the provider


def outcomes(work: Work) -> list[Any]:
    """How long each job takes: the same for every way."""
    from nbimg.testing import Outcome

    drawn = random.Random(7)
    return [
        Outcome(running_s=work.seconds * max(0.3, drawn.gauss(1, work.spread)), prompt_has=text)
        for text in [*prompts(work, "warm"), *prompts(work)]
    ]


def troubles(jobs: int) -> tuple[list[Any], list[Any]]:
    """The script of what goes wrong: (faults, outcomes), spread over the whole batch."""
    from nbimg.testing import FAILURES, Fault, Outcome

    create = {"method": "POST", "path": "*/predictions"}
    poll = {"method": "GET", "path": "/v1/predictions/*"}
    picture = {"method": "GET", "path": "/xezq/*"}
    each = [
        {"kind": "drop", "when": "after", **create},
        {"kind": "html", "when": "after", **create},
        {"kind": "drop", "when": "before", **create},
        {"kind": "error", "status": 500, "when": "after", **create},
        {"kind": "error", "status": 429, "retry_after_s": 1, **create},
        {"kind": "truncate", **create},
        {"kind": "cut", **create},
        {"kind": "html", **poll},
        {"kind": "cut", **poll},
        {"kind": "drop", **poll},
        {"kind": "truncate", **picture},
        {"kind": "cut", **picture},
        {"kind": "html", **picture},
        {"kind": "drop", **picture},
    ]
    faults = [Fault(**one, skip=skip) for skip in range(2, max(3, jobs // 12)) for one in each]
    rare = [
        Outcome(status="aborted"),
        Outcome(error=FAILURES["interrupted"]),
        Outcome(error=FAILURES["E005"], prompt_has="task 003"),
        Outcome(output="str"),
    ]
    return faults, rare * max(1, jobs // 50)


def _serve(pipe: Connection, work: Work, trouble: bool) -> None:
    from nbimg.testing import ReplicateServer

    faults, rare = troubles(work.jobs) if trouble else ([], [])
    knobs = {"starting_s": 0.0, "running_s": work.seconds}
    own = [] if trouble else outcomes(work)
    with ReplicateServer(outcomes=[*rare, *own], faults=faults, **knobs) as server:
        pipe.send((server.base_url, server.token))
        before = 0
        while (asked := pipe.recv()) != "stop":
            if asked == "begin":
                before = len(server.matching(host="api"))
            pipe.send(_report(server, before))


def _report(server: Any, before: int) -> dict[str, Any]:
    fetched: dict[str, float] = {}
    for call in server.matching("GET", "/xezq/*"):
        fetched.setdefault(call.path.split("/")[2], call.at_s)
    ends = {
        job.id: job.completed_s + server._epoch_s  # noqa: SLF001
        for job in server.jobs
        if job.input["prompt"].startswith("task")
    }
    return {
        "lags": [fetched[job_id] - at for job_id, at in ends.items() if job_id in fetched],
        "requests": len(server.matching(host="api")) - before,
        "jobs": len(server.jobs),
        "unfetched": sum(job.id not in fetched for job in server.billed_jobs),
        "twice": sum(len(group) - 1 for group in server.duplicates()),
        "leaks": len(server.leaks),
    }


@contextlib.contextmanager
def serving(work: Work, *, trouble: bool = False) -> Iterator[tuple[str, str, Connection]]:
    """Run the local Replicate in a process of its own: address, key, and a pipe to ask it."""
    near, far = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(far, work, trouble))
    process.start()
    try:
        yield (*near.recv(), near)
    finally:
        near.send("stop")
        process.join()


# ---------------------------------------------------------------------- the ways


def prompts(work: Work, word: str = "task") -> list[str]:
    """Return the prompts; those of the jobs that go before begin with another word."""
    number = work.jobs if word == "task" else work.warm
    return [f"{word} {place:03}" for place in range(number)]


def _missing(texts: list[str], folder: Path) -> list[int]:
    return [place for place in range(len(texts)) if not _whole(folder / f"{place}.webp")]


def _whole(path: Path) -> bool:
    from PIL import Image

    try:
        Image.open(path).load()
    except OSError:
        return False
    return True


def official(
    work: Work, texts: list[str], base: str, token: str, folder: Path, *, hold: bool
) -> list[str]:
    """The `replicate` client in a gather with a semaphore; return the errors, by their names."""

    async def run() -> list[str]:
        import replicate
        from replicate.helpers import FileOutput

        client = replicate.Client(api_token=token, base_url=base)
        permits = asyncio.Semaphore(work.at_once)

        async def one(number: int) -> None:
            inputs = {"prompt": texts[number], "seed": number}
            async with permits:
                if hold:
                    output = await client.async_run(MODEL, input=inputs)
                else:
                    made = await client.predictions.async_create(model=MODEL, input=inputs)
                    await made.async_wait()
                    output = made.output
            url = output if isinstance(output, str) else output[0]
            data = await FileOutput(str(url), client).aread()
            (folder / f"{number}.webp").write_bytes(data)

        done = await asyncio.gather(*map(one, _missing(texts, folder)), return_exceptions=True)
        await client._async_client.aclose()  # noqa: SLF001  # it has no public way to close
        return [type(error).__name__ for error in done if isinstance(error, BaseException)]

    return asyncio.run(run())


def ours(work: Work, texts: list[str], base: str, token: str, folder: Path) -> list[str]:  # noqa: ARG001
    """`nbimg.batch`, and `nbimg.resume` for what was left behind; return the errors, by their names."""
    import nbimg
    from nbimg import session

    session.default().settings.set("output_dir", str(folder))
    nbimg.resume()
    requests = [
        nbimg.Request(texts[number], seed=number, output=f"{number}.webp")
        for number in _missing(texts, folder)
    ]
    results = nbimg.batch(requests, model="flux-dev", concurrency=work.at_once, fallback=())
    return [str(result.error.kind) for result in results if result.error is not None]


WAYS: dict[str, Callable[..., list[str]]] = {
    "create + wait": lambda *args: official(*args, hold=False),
    "held run": lambda *args: official(*args, hold=True),
    "nbimg": ours,
}
#: Errors that each way documents; any other one is a crash.
DOCUMENTED = {
    "ReplicateError", "ModelError", "ReadError", "ConnectError", "ReadTimeout", "RemoteProtocolError",
    "BusyError", "ContentRefusedError", "JobFailedError", "OutcomeUnknownError", "RejectedError",
    "ReplyError", "UnreachableError",
}  # fmt: skip


def _child(pipe: Connection, way: str, rounds: int, work: Work, base: str, token: str) -> None:
    os.environ.update(NBIMG_REPLICATE_BASE_URL=base, REPLICATE_API_TOKEN=token)
    os.environ.pop("REPLICATE_POLL_INTERVAL", None)
    errors: list[str] = []
    with tempfile.TemporaryDirectory(prefix="nbimg-bench-") as name:
        folder = Path(name)
        for part in ("warm", "task"):
            (folder / part).mkdir()
        WAYS[way](work, prompts(work, "warm"), base, token, folder / "warm")
        pipe.send("begin")
        pipe.recv()
        began, texts, folder = time.perf_counter(), prompts(work), folder / "task"
        for _ in range(rounds):
            errors += WAYS[way](work, texts, base, token, folder)
        seconds = time.perf_counter() - began
        pipe.send({"seconds": seconds, "errors": errors, "missing": len(_missing(texts, folder))})


def measure(way: str, work: Work, *, trouble: bool = False) -> dict[str, Any]:
    """Make the pictures in one way, against a server of its own."""
    with serving(work, trouble=trouble) as (base, token, server):
        near, far = _SPAWN.Pipe()
        rounds = 2 if trouble else 1
        process = _SPAWN.Process(target=_child, args=(far, way, rounds, work, base, token))
        process.start()
        far.close()
        server.send(near.recv())
        server.recv()
        near.send("go")
        measured = near.recv()
        process.join()
        server.send("report")
        return {**measured, **server.recv()}


# ---------------------------------------------------------------------- the tables


def lags(work: Work) -> dict[str, Any]:
    """Print the first table; return its rows."""
    print(
        f"{work.jobs} jobs of {work.seconds:g} s (spread {work.spread:.0%}), {work.at_once} at once, "
        f"after {work.warm} that are not counted"
    )
    print(
        f"  {'':16} {'lag, mean':>10} {'median':>8} {'95 %':>8} {'requests':>9} {'whole batch':>12}"
    )
    rows = {}
    for way in WAYS:
        row = rows[way] = measure(way, work)
        found = sorted(row.pop("lags"))
        row["mean_s"], row["median_s"] = statistics.fmean(found), statistics.median(found)
        row["late_s"] = found[int(0.95 * (len(found) - 1))]
        row["each"] = row["requests"] / work.jobs
        print(
            f"  {way:16} {row['mean_s'] * 1e3:7.0f} ms {row['median_s'] * 1e3:5.0f} ms "
            f"{row['late_s'] * 1e3:5.0f} ms {row['each']:9.2f} {row['seconds']:10.2f} s"
        )
    mine, polled, held = rows["nbimg"], rows["create + wait"], rows["held run"]
    print(
        f"  nbimg has {mine['mean_s'] / polled['mean_s']:.0%} of the lag of create + wait (wanted: 33% "
        f"at most) at {mine['each'] / polled['each']:.0%} of its requests (wanted: 100% at most), and takes"
        f" {mine['seconds'] / held['seconds']:.1%} of the time of the held run"
    )
    return rows


def faults(work: Work) -> dict[str, Any]:
    """Print the second table; return its rows."""
    print(f"{work.jobs} jobs while things go wrong, and once more what has no picture then")
    heads = ("no picture", "paid, not fetched", "paid twice", "crashes", "key to others")
    print(f"  {'':16} " + " ".join(f"{head:>18}" for head in heads))
    rows = {}
    for way in WAYS:
        row = rows[way] = measure(way, work, trouble=True)
        row.pop("lags")
        row["crashes"] = sum(error not in DOCUMENTED for error in row["errors"])
        counts = [row[key] for key in ("missing", "unfetched", "twice", "crashes", "leaks")]
        print(f"  {way:16} " + " ".join(f"{count:18}" for count in counts))
    return rows


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a job")
    parser.add_argument("--spread", type=float, default=0.05, help="of these seconds")
    parser.add_argument("--warm", type=int, default=20, help="jobs that go before, unmeasured")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    known = parser.parse_args()
    work = Work(known.jobs, known.at_once, known.seconds, known.spread, known.warm)
    figures = {"lags": lags(work), "faults": faults(Work(known.jobs, known.at_once, 0.2, 0))}
    if known.json:
        known.json.write_text(json.dumps(figures, indent=2), "utf-8")


if __name__ == "__main__":
    main()
