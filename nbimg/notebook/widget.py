"""What our widgets have in common: the page asks, a thread answers; and how their scripts are put together.

Stage: the front end, below panel and gallery; imported when the first of them is opened. Comes in: messages of
the page. Goes out: answers, each with bytes beside it where there are any. Must not: answer in the kernel's
main thread, which may be busy with a cell, or keep pictures in the state of a widget, which would be saved.

Where the kernel has subshells, messages are heard while a cell runs. ipykernel 7.4 sends them to the main
shell all the same once a widget was made there; that is undone for ours.
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, ClassVar

import anywidget

from nbimg.errors import NbimgError

__all__ = ["Answer", "Widget", "living", "script", "style"]

Answer = tuple[Any, Sequence[bytes]]
"""What is answered: JSON data, and bytes beside it."""

log = logging.getLogger("nbimg")

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:function|class|const) (\w+)", re.MULTILINE)
_EXPORTING = re.compile(r"^export ", re.MULTILINE)
_THREADS = 4

_living: weakref.WeakSet[Widget] = weakref.WeakSet()


def script(name: str) -> str:
    """Return a module of ours with those that it imports as one text: a widget's script has no folder.

    Each module keeps a scope of its own; nothing else about it changes.

    Args:
        name: Of the file in `web`, without its ending.
    """
    texts: dict[str, str] = {}

    def add(module: str) -> None:
        text = _file(f"{module}.js")
        for _names, needed in _IMPORT.findall(text):
            if needed not in texts:
                add(needed)
        text = _IMPORT.sub(r"const {\1} = module_\2;\n", text)
        exports = ", ".join(_EXPORT.findall(text))
        inner = _EXPORTING.sub("", text)
        texts[module] = (
            text
            if module == name
            else f"const module_{module} = (() => {{\n{inner}\nreturn {{ {exports} }};\n}})();\n"
        )

    add(name)
    return "\n".join(texts.values())


def style(*names: str) -> str:
    """Return style sheets of ours as one text."""
    return "\n".join(_file(f"{name}.css") for name in names)


def _file(name: str) -> str:
    return resources.files("nbimg").joinpath("notebook", "web", name).read_text("utf-8")


def living(kind: type[Widget] | str) -> list[Widget]:
    """Return the widgets of a kind that are open in this kernel."""
    name = kind if isinstance(kind, str) else kind.__name__
    return [widget for widget in list(_living) if type(widget).__name__ == name and widget.comm]


class Widget(anywidget.AnyWidget):
    """A widget whose page asks by name; a subclass lists who answers in `answers`.

    Attributes:
        said: What stands in the place of the widget where there is none.
    """

    said: ClassVar[str] = "nbimg"

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="nbimg-widget")
        self._sending = threading.Lock()
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001
        self.on_msg(self._heard)
        _living.add(self)

    def answers(self) -> Mapping[str, Callable[..., Answer | Any]]:
        """Return name → what answers: it takes the arguments by name, and `data`, the bytes beside them."""
        return {}

    def close(self) -> None:
        """Take it off the page."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _heard(self, _widget: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        if "ask" in content:
            self._pool.submit(self._answer, content, [bytes(buffer) for buffer in buffers])

    def _answer(self, content: Mapping[str, Any], data: list[bytes]) -> None:
        reply: dict[str, Any] = {"re": content.get("id")}
        buffers: Sequence[bytes] = ()
        try:
            answer = self.answers()[str(content["ask"])]
            arguments = dict(content.get("args") or {})
            found = answer(**arguments, data=data) if data else answer(**arguments)
            reply["value"], buffers = found if isinstance(found, tuple) else (found, ())
        except NbimgError as error:
            reply["error"] = str(error)
        except Exception as error:  # the page must not wait for ever
            log.warning("%s cannot be answered", content.get("ask"), exc_info=True)
            reply["error"] = f"{type(error).__name__}: {error}"
        self.tell(reply, buffers)

    def tell(self, content: Mapping[str, Any], buffers: Sequence[bytes] = ()) -> None:
        """Send a message to every view of the widget; from any thread."""
        if self.comm is not None:
            with self._sending:
                self.send(dict(content), list(buffers))

    def __repr__(self) -> str:
        return self.said
