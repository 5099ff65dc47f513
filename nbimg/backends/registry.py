"""Which backends exist: a table of names, from which one is imported when it is first asked for.

Stage: above the backends. Comes in: a provider's name. Goes out: its backend, made once. A third party
adds one through the entry-point group `nbimg.backends` or `register_backend`.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from types import MappingProxyType

from nbimg.backends.base import Context, LocalBackend, RemoteBackend
from nbimg.concurrency.bridge import bridged
from nbimg.errors import SettingError, UnknownNameError

__all__ = ["Backend", "Registry", "register_backend"]

Backend = RemoteBackend | LocalBackend
Factory = Callable[[Context], Backend]

#: Provider → `module:Class`; nothing is imported before it is needed.
BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "demo": "nbimg.backends.local:DemoBackend",
        "hunyuan": "nbimg.backends.hunyuan:HunyuanBackend",
        "local": "nbimg.backends.local:DiffusersBackend",
        "openai": "nbimg.backends.openai:OpenAIBackend",
        "replicate": "nbimg.backends.replicate:ReplicateBackend",
        "speedpix": "nbimg.backends.speedpix:SpeedPixBackend",
    }
)
_added: dict[str, Factory] = {}


def register_backend(name: str, factory: Factory, *, replace: bool = False) -> None:
    """Add a backend of one's own, for this process.

    Args:
        name: The provider's name in `provider:model`.
        factory: Takes a `Context`, returns the backend; usually its class.
        replace: Whether a name that is taken may be replaced.

    Raises:
        SettingError: When the name is taken.
    """
    if not replace and (name in BUILT_IN or name in _added):
        raise SettingError(f"there is a backend {name!r} already.", hint="Pass replace=True.")
    _added[name] = factory


class Registry:
    """The backends of a session, each made at first use.

    Args:
        context: What each is given.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._made: dict[str, Backend] = {}

    def names(self) -> tuple[str, ...]:
        """Return every provider that can be named, sorted."""
        return tuple(sorted({*BUILT_IN, *_added, *_entry_points()}))

    def get(self, name: str) -> Backend:
        """Return the backend of a provider, as the call under way has to speak to it.

        Raises:
            UnknownNameError: When there is none of that name.
        """
        with self._lock:
            if name not in self._made:
                self._made[name] = self._factory(name)(self._context)
            return bridged(self._made[name])

    def made(self) -> tuple[Backend, ...]:
        """Return the backends that were used so far."""
        with self._lock:
            return tuple(self._made.values())

    def _factory(self, name: str) -> Factory:
        if name in _added:
            return _added[name]
        points = _entry_points()
        if name in points:
            return points[name].load()  # type: ignore[no-any-return]  # whatever the plugin names
        if name not in BUILT_IN:
            raise UnknownNameError("provider", name, known=self.names())
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]


@functools.cache
def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group="nbimg.backends")}
