"""A cell is awaited where the kernel can: the notebook's own tasks go on; elsewhere it blocks them unharmed."""

from __future__ import annotations

import pytest

from nbimg.testing import Outcome

from .test_kernel import IMAGE

TICKING = """
import asyncio, threading
ticks = []
async def _tick():
    while True:
        ticks.append(threading.current_thread() is threading.main_thread())
        await asyncio.sleep(0.02)
ticking = asyncio.get_running_loop().create_task(_tick())
await asyncio.sleep(0)
"""

AWAITED = [
    "%%imggen\na cat",
    "\n\n%%imggen -n 1\na cat\n",
    "%%imggen --seed 4\na 'cat' with \"quotes\" and a \\ {{brace}}",
]
BLOCKING = [
    "%%capture kept\n%%imggen\na cat",
    "%%time\n%%imggen\na cat",
    "get_ipython().run_cell('%%imggen\\na cat')",
    "x = 1\nget_ipython().run_cell_magic('imggen', '', 'a cat')",
    "def cell():\n    get_ipython().run_cell_magic('imggen', '', 'a cat')\ncell()",
    "%imggen a cat",
    "cats = %imggen a cat",
    "await asyncio.sleep(0)\ncats = %imggen a cat",
]


@pytest.fixture
def slow(notebook, server):
    """Jobs that take a second, beside a task of the notebook that ticks fifty times in one."""
    server.expect(Outcome(running_s=1.0, times=None))
    assert notebook.run(TICKING).ok
    yield notebook
    notebook.run("ticking.cancel()")


def ticks_during(notebook, source):
    notebook.run("ticks.clear()")
    ran = notebook.run(source + "\n")
    assert ran.ok, ran.error
    return int(notebook.value("len(ticks)")), ran


@pytest.mark.parametrize("cell", AWAITED)
def test_the_notebook_goes_on_while_a_cell_is_awaited(slow, server, cell):
    ticks, ran = ticks_during(slow, cell)
    assert ticks > 20
    assert len(IMAGE.findall(ran.html)) == 1
    assert len(ran.outputs) == 1
    assert len(server.jobs) == 1
    assert slow.value("len(_img.paths), all(ticks)") == "1 True"


@pytest.mark.parametrize("cell", BLOCKING)
def test_where_it_cannot_be_awaited_it_blocks_and_the_other_tasks_are_unharmed(slow, server, cell):
    ticks, _ = ticks_during(slow, cell)
    assert ticks < 20
    assert len(server.jobs) == 1
    assert slow.value("len(_img.paths), ticking.done()") == "1 False"


def test_a_cell_blocks_without_autoawait(slow):
    slow.run("%autoawait off")
    ticks, ran = ticks_during(slow, "%%imggen\na cat")
    slow.run("%autoawait on")
    assert ticks < 20
    assert len(IMAGE.findall(ran.html)) == 1


def test_what_a_cell_holds_is_sent_as_it_was_typed(slow, server):
    text = 'a \'cat\' with """quotes""" and a \\ backslash\n\n  and \t more'
    assert slow.run(f"%%imggen\n{text}").ok
    assert server.jobs[0].input["prompt"] == text
    assert slow.value("get_ipython().history_manager.input_hist_raw[-2]").startswith("%%imggen")


def test_a_callback_of_the_loop_can_call_while_a_cell_is_awaited(slow, server):
    slow.run(
        "import nbimg\nmade = []\n"
        "def click():\n    made.append(len(nbimg.generate('a dog').paths))\n"
        "asyncio.get_running_loop().call_later(0.2, click)"
    )
    ran = slow.run("%%imggen\na cat")
    assert ran.ok
    assert IMAGE.findall(ran.html) == ["a cat"]
    assert slow.value("made") == "[1]"


def test_a_thread_and_an_await_can_call_while_a_cell_is_awaited(slow):
    slow.run(
        "import nbimg, threading\nmade = []\n"
        "def inside():\n    made.append(len(nbimg.generate('a dog').paths))\n"
        "async def beside():\n    made.append(len((await nbimg.agenerate('a bird')).paths))\n"
        "beside_task = asyncio.get_running_loop().create_task(beside())\n"
        "async def comm():\n    inside()\n"  # a loop of its own, as where the clicks of widgets arrive
        "threads = [threading.Thread(target=inside), threading.Thread(target=lambda: asyncio.run(comm()))]\n"
        "for thread in threads: thread.start()"
    )
    assert slow.run("%%imggen\na cat").ok
    slow.run("for thread in threads: thread.join()\nawait beside_task")
    assert slow.value("made") == "[1, 1, 1]"


def test_stop_ends_an_awaited_cell_and_not_the_other_tasks(slow, server):
    server.expect(Outcome(prompt_has="hang", running_s=10_000.0, times=None))

    def stop():
        while not any(job.status == "processing" for job in server.jobs):
            slow.sleep(0.05)
        slow.sleep(0.3)
        slow.interrupt()

    ran = slow.run("%%imggen\nhang", meanwhile=stop)
    assert ran.error.splitlines() == ["Stopped: 0 images kept."]
    assert ran.reply["status"] == "error"
    assert slow.since_stop_s() < 2.0
    assert [job.status for job in server.jobs] == ["canceled"]
    assert slow.value("ticking.done()") == "False"
    assert slow.run("%%imggen\na cat").ok


def test_stop_reaches_what_blocks_in_an_awaited_cell(slow):
    """Reading the cell and its variables happens in the kernel's own thread."""
    slow.run(
        "import time\nclass Slow(list):\n    def __iter__(self): time.sleep(30)\nslow = Slow('ab')"
    )

    def stop():
        slow.sleep(1.0)
        slow.interrupt()

    ran = slow.run("%%imggen\na {slow} cat", meanwhile=stop)
    assert ran.error.splitlines() == ["Stopped."]
    assert slow.since_stop_s() < 2.0


def test_loading_again_leaves_one_transformer_and_unloading_none(notebook):
    count = "sum('Awaited' in type(t).__name__ for t in get_ipython().input_transformers_post)"
    notebook.run("%reload_ext nbimg\n%reload_ext nbimg")
    assert notebook.value(count) == "1"
    notebook.run("%unload_ext nbimg")
    assert notebook.value(count) == "0"
    assert notebook.value("'NbImg' in get_ipython().magics_manager.registry") == "False"


def test_a_fork_of_the_kernel_makes_its_own_images(notebook, server):
    assert notebook.run(
        "import nbimg, os\nfrom nbimg.notebook import live\nnbimg.generate('a cat').paths"
    ).ok
    notebook.run(
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n        made = len(nbimg.generate('a dog').paths)\n"
        "        os._exit(40 + made + 10 * live.in_kernel())\n"
        "    finally:\n        os._exit(1)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])"
    )
    assert notebook.value("code") == "41"
    assert notebook.run("%%imggen\na bird").ok
    assert len(server.jobs) == 3
