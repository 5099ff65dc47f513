"""What a page would hear from a widget, without a page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Heard"]


class Heard:
    """Asks a widget as its page does, and keeps all that the widget says."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.said: list[tuple[dict[str, Any], list[bytes]]] = []
        widget.send = self._send

    def _send(self, content: dict[str, Any], buffers: Any) -> None:
        self.said.append((json.loads(json.dumps(content)), list(buffers)))

    def ask(self, what: str, /, *data: bytes, **args: Any) -> tuple[Any, list[bytes]]:
        """Return the answer and the bytes beside it; an error is an AssertionError."""
        number = f"q{len(self.said)}-{time.monotonic_ns()}"
        self.widget._heard(self.widget, {"ask": what, "id": number, "args": args}, list(data))
        reply, buffers = self.wait(lambda said: said.get("re") == number)
        assert "error" not in reply, reply["error"]
        return reply["value"], buffers

    def refused(self, what: str, /, *data: bytes, **args: Any) -> str:
        """Return why something is not answered."""
        try:
            self.ask(what, *data, **args)
        except AssertionError as error:
            return str(error)
        raise AssertionError(f"{what} was answered")

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], list[bytes]]:
        """Return the first message that is wanted, when it has come."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for said in list(self.said):
                if wanted(said[0]):
                    return said
            time.sleep(0.01)
        raise AssertionError("it was never said")

    def ended(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended; return what was said of it last."""
        return self.wait(lambda said: said.get("id") == job and said.get("done") is True)[0]
