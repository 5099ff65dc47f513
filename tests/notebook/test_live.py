"""The live grid seen from the kernel: who gets it, what is sent, and what is left in the end."""

from __future__ import annotations

import pytest

from nbimg.testing import Outcome

from .test_kernel import IMAGE

VIEW = "application/vnd.jupyter.widget-view+json"
WATCHED = """
from nbimg.notebook import live, livegrid, screen
_kept = live._is_watched, live.GRID_AFTER_S, live.PATIENCE_S
live._is_watched, live.GRID_AFTER_S, live.PATIENCE_S = (lambda: True), 0.1, {patience}
live.Live._answered = False
_screens, _begin = [], screen.Screen.__init__
def _made(self, *args, **kwargs):
    _begin(self, *args, **kwargs)
    self.sent = []
    _send = self._send
    self._send = lambda msg, buffers=None: (self.sent.append((msg, buffers or [])), _send(msg, buffers))
    _screens.append(self)
    if {answers}:
        self._hear(self, {{"kind": "ready", "page": "one"}}, [])
screen.Screen.__init__ = _made
"""
UNWATCHED = """
live._is_watched, live.GRID_AFTER_S, live.PATIENCE_S = _kept
live.Live._answered = False
screen.Screen.__init__ = _begin
"""


@pytest.fixture
def watched(notebook, server):
    """A kernel that takes its front end for one with a person before it."""
    server.expect(Outcome(prompt_has="hang", running_s=10_000.0, times=None))
    server.expect(Outcome(prompt_has="slow", running_s=1.0, times=None))

    def watch(*, answers=True, patience=0.5):
        assert notebook.run(WATCHED.format(answers=answers, patience=patience)).ok
        return notebook

    yield watch
    notebook.run(UNWATCHED)


def shown_by(notebook, source):
    """What was displayed, in order: `line`, `widget` or `grid`, and the bundle of each."""
    bundles = [data for _, data in notebook.run_watched(source) if "text/html" in data]
    kinds = [
        "widget" if VIEW in data else "line" if "<progress" in data["text/html"] else "grid"
        for data in bundles
    ]
    return kinds, bundles


def test_a_notebook_that_is_run_unseen_gets_the_line_and_no_widget(notebook, server):
    server.expect(Outcome(running_s=1.0, times=None))
    shown = notebook.run_watched("%%imggen\na cat")
    assert len(shown) > 2
    assert not any(VIEW in data for _, data in shown)
    assert "widgets" not in notebook.node.metadata or not notebook.node.metadata["widgets"]


def test_the_widget_takes_the_place_of_the_line_and_the_grid_that_of_the_widget(watched):
    notebook = watched()
    kinds, _ = shown_by(notebook, "%%imggen -n 2\na slow cat")
    assert kinds[0] == "line"
    assert kinds[-2:] == ["widget", "grid"]
    assert kinds.count("widget") == 1, "what a page shows is not drawn again"
    assert len(notebook.node.cells[-1].outputs) == 1
    assert notebook.value("_screens[0].comm is None") == "True"


def test_each_picture_is_sent_once_and_only_what_has_changed(watched):
    notebook = watched()
    assert notebook.run("%%imggen --lines -c 1\na slow cat\na slow dog\na slow bird").ok
    notebook.run("sent = [bytes(b) for m, bs in _screens[0].sent for b in bs if len(b)]")
    assert notebook.value("len(sent) == len(set(sent)), len(sent) in (2, 3)") == "True True"
    assert int(notebook.value("len(_screens[0].sent)")) < 40


def test_a_page_that_does_not_answer_gets_the_line_back_and_no_pictures(watched):
    notebook = watched(answers=False)
    kinds, shown = shown_by(notebook, "%%imggen --lines\na cat\na slow dog")
    assert "widget" in kinds
    assert kinds[kinds.index("widget") :].count("line") > 1
    assert kinds[-1] == "grid"
    assert all("<progress" in d["text/html"] for d in shown if VIEW in d), (
        "for those without widgets"
    )
    assert notebook.value("any(bs for _, bs in _screens[0].sent)") == "False"


@pytest.mark.parametrize("wrap", ["", "%%time\n"], ids=["awaited", "blocking"])
def test_a_press_on_stop_ends_the_cell_as_the_stop_button_of_the_page_does(watched, server, wrap):
    notebook = watched()
    notebook.run(
        "import threading, time\n"
        "def _press():\n"
        "    while not _screens: time.sleep(0.05)\n"
        "    time.sleep(0.7)\n"
        "    _screens[0]._hear(_screens[0], {'kind': 'stop'}, [])\n"
        "threading.Thread(target=_press).start()"
    )
    ran = notebook.run(f"{wrap}%%imggen --lines\na cat\nhang on")
    assert "Stopped: 1 image kept." in ran.error
    assert ran.reply["status"] == "error", "Run All stops here"
    assert IMAGE.findall(ran.html) == ["a cat"]
    assert server.jobs[-1].status == "canceled" or server.jobs[0].status == "canceled"


def test_the_page_is_heard_beside_the_cell(watched):
    notebook = watched()
    assert notebook.run("%%imggen\na slow cat").ok
    notebook.run(
        "from nbimg.display.frame import Frame\n"
        "one = screen.Screen(Frame(256, 1.0), {}, size=2, feed=False, pressed=lambda: None)"
    )
    has = notebook.value("hasattr(one.comm, '_reply_subshell_for')")
    if has == "True":  # ipykernel 7.4
        assert notebook.value("one.comm._reply_subshell_for({}, 'beside')") == "beside"


def test_a_page_that_was_loaded_again_gets_the_grid_through_the_widget(watched):
    notebook = watched()
    notebook.run(
        "import threading, time\n"
        "def _reload():\n"
        "    while not _screens: time.sleep(0.05)\n"
        "    _screens[0]._hear(_screens[0], {'kind': 'ready', 'page': 'two'}, [])\n"
        "threading.Thread(target=_reload).start()"
    )
    ran = notebook.run("%%imggen\na slow cat")
    assert IMAGE.findall(ran.html) == ["a slow cat"]
    assert notebook.value("_screens[0].comm is not None, len(_screens[0].final) > 1") == "True True"
    assert notebook.value("_screens[0].final['text/html'].count('<img')") == "1"
    assert notebook.value("_screens[0].t0, _screens[0].p0") == "None None", "nothing is kept twice"
