"""A backend whose client was made on the kernel's own loop, in a kernel of its own: a nested run stays."""

from __future__ import annotations

import pytest

from tests.concurrency.test_bridge import MINE

from .conftest import Notebook

WAITS = """
async def _never(self, job_id):
    events.append("poll")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        events.append("poll cancelled")
        raise
_poll, Mine.poll = Mine.poll, _never
"""


@pytest.fixture(scope="module")
def bound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bound")
    notebook = Notebook(folder)
    notebook.begin(folder, {})
    assert notebook.run(MINE + "Mine.home = asyncio.get_running_loop()").ok
    assert notebook.run("beside = asyncio.create_task(tick())\nawait asyncio.sleep(0.1)").ok
    yield notebook
    notebook.close()


def test_an_awaited_cell_needs_no_nested_run(bound):
    ran = bound.run("%%imggen -m mine:m\na cat")
    assert ran.ok, ran.error
    assert ran.html.count("<img") == 1
    assert bound.value("hasattr(asyncio, '_nest_patched')") == "False"


@pytest.mark.parametrize(
    "cell",
    [
        "made = nbimg.generate('a cat', model='mine:m')",
        "made = %imggen -m mine:m a cat",
        "%%capture out\n%%imggen -m mine:m -v made\na cat",
        "made = nbimg.submit('a cat', model='mine:m').wait()",
        "%imggen --dry-run -m mine:m a cat\nmade = await nbimg.agenerate('a cat', model='mine:m')",
    ],
)
def test_a_blocking_cell_runs_it_and_the_other_tasks(bound, cell):
    bound.run("ticks.clear()")
    ran = bound.run(cell)
    assert ran.ok, ran.error
    assert bound.value("len(made.paths), len(ticks) > 3, beside.done()") == "1 True False"


def test_stop_ends_it_and_nothing_else(bound):
    bound.run(WAITS + "events.clear()")

    def stop():
        bound.sleep(1.5)
        bound.interrupt()

    ran = bound.run("made = %imggen -m mine:m a cat", meanwhile=stop)
    bound.run("Mine.poll = _poll")
    assert bound.since_stop_s() < 2.0
    assert ran.error.splitlines() == ["Stopped: 0 images kept."]
    bound.run("await asyncio.sleep(0.2)")
    said = "['create', 'poll', 'poll cancelled', 'cancel'] False"
    assert bound.value("events, beside.done()") == said
    left = "[t for t in asyncio.all_tasks() if 'step' in repr(t) or 'Mine' in repr(t)]"
    assert bound.value(left) == "[]"


def test_the_kernel_works_as_before_after_that(bound):
    assert bound.run("%%imggen -m mine:m\na cat").ok
    assert bound.value("1 + 1") == "2"
    ran = bound.run(
        "import time\ntime.sleep(20)", meanwhile=lambda: (bound.sleep(0.5), bound.interrupt())
    )
    assert ran.error_name == "KeyboardInterrupt"
    assert bound.since_stop_s() < 2.0
