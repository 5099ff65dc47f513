"""`kill -9` at any point: nothing that was paid is lost, and nothing is paid twice.

A dozen random points by default; `python3 run.py test tests/engine/test_kill.py --kills 100` for more.
"""

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from nbimg.testing import ReplicateServer
from tests.engine import kills

IMAGES = kills.TASKS + kills.TASKS // 10
SEEDS = sorted(1000 + n + k for n in range(kills.TASKS) for k in range(2 if n % 10 == 0 else 1))


@pytest.fixture(scope="module")
def processes():
    """Processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["nbimg.session", "nbimg.backends.replicate", "httpx", "PIL.Image"]
    )
    return context


class Kernels:
    """Processes that work in one folder, one after the other."""

    def __init__(self, context, folder, server):
        self._context, self._folder, self._server = context, folder, server

    def run(self, work, *args, kill_after_s=None):
        """What it tells; a list that ends early when it was killed."""
        near, far = self._context.Pipe()
        environ = {
            "NBIMG_REPLICATE_BASE_URL": self._server.base_url,
            "REPLICATE_API_TOKEN": self._server.token,
            "NBIMG_RETRY_MIN_S": "0.05",
            "NBIMG_RETRY_MAX_S": "0.1",
            "NBIMG_REPLICATE_RATE": "100000/1s",
        }
        process = self._context.Process(target=work, args=(self._folder, environ, far, *args))
        process.start()
        far.close()
        heard = []
        try:
            heard.append(near.recv())
            if kill_after_s is not None:
                process.join(kill_after_s)
                process.kill()
            heard.append(near.recv())
        except EOFError:
            assert kill_after_s is not None, "the process failed by itself"
        finally:
            process.join(60)
            process.kill()
            near.close()
        return heard


@pytest.fixture
def kernels(processes, tmp_path):
    with ReplicateServer(create_limit=None, other_limit=None) as server:
        yield Kernels(processes, tmp_path, server), server


def test_a_killed_batch_is_taken_up_whole(kernels, kill_number):
    kernel, server = kernels
    chance = random.Random(kill_number)
    server.starting_s, server.running_s = chance.uniform(0, 0.02), chance.uniform(0, 0.1)
    server.latency_s = lambda _call: chance.uniform(0, 0.01)

    told = kernel.run(kills.send, kill_after_s=chance.uniform(0, 3.0))
    batch, killed = told[0], len(told) == 1
    while killed and chance.random() < 0.3:  # the one that takes it up dies as well
        killed = (
            len(kernel.run(kills.take_up, batch, False, kill_after_s=chance.uniform(0, 0.5))) == 1
        )

    time.sleep(0.1)  # what was on its way arrives
    accepted = len(server.jobs)
    left, fetched = kernel.run(kills.take_up, None, False)
    assert len(server.jobs) == accepted, "resume without remaining has created jobs"
    if fetched:
        assert len(fetched) == kills.TASKS
        assert_all_that_was_paid_is_there(fetched, server)
    if not any(left) and not fetched and not accepted:
        return  # killed before the batch was written down: nothing was sent
    whole = kernel.run(kills.take_up, batch, True)[1]
    assert [row[0] for row in whole] == [1000 + n for n in range(kills.TASKS)]
    assert {row[1] for row in whole} == {"ok"}
    paths = [path for row in whole for path in row[2]]
    assert sorted(seed for row in whole for seed in row[3]) == SEEDS
    assert len(set(paths)) == IMAGES
    assert all(Path(path).stat().st_size > 0 for path in paths)
    counted = Counter((job.input["prompt"], job.input["seed"]) for job in server.jobs)
    assert set(counted.values()) == {1}, "something was paid twice"
    assert len(counted) == IMAGES
    assert tuple(kernel.run(kills.take_up, batch, False)[0]) == (0, 0, 0)


def assert_all_that_was_paid_is_there(fetched, server):
    """Every job that the provider has accepted is an image on disk."""
    here = {seed for row in fetched for seed in row[3]}
    assert {job.input["seed"] for job in server.jobs} == here
    for row in fetched:
        assert all(Path(path).stat().st_size for path in row[2])
