"""The engine's own cost: 1,000 tasks of zero latency, beside a bare asyncio + httpx loop.

Both post, poll, download and save the same images from the same local server, with the same number of
tasks at once. The bare loop retries nothing, journals nothing and flushes nothing to the disk.

    python benchmarks/engine.py [--tasks 1000] [--at-once 32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

MODEL = "black-forest-labs/flux-dev"


def serve(pipe: Connection) -> None:
    """Run the server in a process of its own until told to stop."""
    from nbimg.testing import ReplicateServer

    server = ReplicateServer(create_limit=None, other_limit=None, starting_s=0, running_s=0)
    with server:
        pipe.send((server.base_url, server.token))
        pipe.recv()


async def bare(base: str, token: str, tasks: int, at_once: int, folder: Path) -> None:
    """What a person writes by hand."""
    permits = asyncio.Semaphore(at_once)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=60) as client:

        async def one(number: int) -> None:
            async with permits:
                url = f"{base}/v1/models/{MODEL}/predictions"
                body = {"input": {"prompt": f"task {number}", "seed": number}}
                job = (await client.post(url, json=body, headers=headers)).json()
                while job["status"] not in ("succeeded", "failed", "canceled"):
                    url = f"{base}/v1/predictions/{job['id']}"
                    job = (await client.get(url, headers=headers)).json()
            image = await client.get(job["output"][0])
            (folder / f"{number}.webp").write_bytes(image.content)

        await asyncio.gather(*map(one, range(tasks)))


def ours(tasks: int, at_once: int, folder: Path) -> None:
    """The same through nbimg."""
    import nbimg
    from nbimg import session

    session.default().settings.set("output_dir", str(folder))
    requests = [nbimg.Request(f"task {n}", seed=n, output=f"{n}.webp") for n in range(tasks)]
    results = nbimg.batch(requests, model="flux-dev", concurrency=at_once)
    assert len(results.ok) == tasks, results.failed


def main() -> None:
    """Run both in turn and print seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    known = parser.parse_args()
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(far,))
    process.start()
    base, token = near.recv()
    os.environ.update(
        NBIMG_REPLICATE_BASE_URL=base, REPLICATE_API_TOKEN=token, NBIMG_REPLICATE_RATE="1000000/1s"
    )
    rows = []
    try:
        for _ in range(known.rounds):
            row = []
            for work in ("bare", "ours"):
                folder = Path(tempfile.mkdtemp(prefix="nbimg-bench-"))
                began = time.perf_counter()
                if work == "bare":
                    asyncio.run(bare(base, token, known.tasks, known.at_once, folder))
                else:
                    ours(known.tasks, known.at_once, folder)
                row.append(time.perf_counter() - began)
                assert len(list(folder.glob("*.webp"))) == known.tasks
                shutil.rmtree(folder)
            rows.append(row)
            print(f"bare {row[0]:6.2f} s   nbimg {row[1]:6.2f} s   ratio {row[1] / row[0]:.2f}")
    finally:
        near.send("stop")
        process.join()
    ratio = statistics.median(row[1] / row[0] for row in rows)
    rate = known.tasks / statistics.median(row[1] for row in rows)
    print(
        f"{known.tasks} tasks, {known.at_once} at once: nbimg takes {ratio:.2f} x the bare loop's time "
        f"(median of {known.rounds}; {rate:.0f} tasks/s)"
    )


if __name__ == "__main__":
    main()
