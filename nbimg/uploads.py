"""Keep a file at a provider: for models that want an address, and for files that many calls take.

Stage: beside the API. Comes in: a path, bytes, an open file, or anything that is an image. Goes out: the
address that the provider gave it. Must not: send a picture's location data, or upload where nobody asked.
"""

from __future__ import annotations

import asyncio
import functools
import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbimg import session
from nbimg.engine.retry import Policy, retrying
from nbimg.errors import InputError, UnknownNameError
from nbimg.media import inputs, pixels

__all__ = ["Upload", "aupload", "upload"]


@dataclass(frozen=True, slots=True)
class Upload:
    """A file at a provider.

    Attributes:
        url: Its address, which the provider's models take for some time (Replicate: a day).
        name: Its name there.
        content_type: Its media type.
        size: Bytes.
        provider: Who keeps it.
    """

    url: str
    name: str
    content_type: str
    size: int
    provider: str

    def __str__(self) -> str:
        return self.url


def upload(file: Any, *, provider: str = "replicate", name: str | None = None) -> Upload:
    """Upload a file; blocks until it is there.

    Args:
        file: A path, bytes, an open file, or what `nbimg.edit` takes as an image.
        provider: Who is to keep it.
        name: What it is called there; None: its own name.

    Returns:
        Its address, for `params={"image": file.url}` for example.

    Raises:
        InputError: When there is no such file, or the provider takes none.
        SetupError: When the provider's key is missing.
        BackendError: When it did not arrive.

    Example:
        >>> f = nbimg.upload("cat.png")  # doctest: +SKIP
        >>> nbimg.generate("in winter", model="flux-dev", params={"image": f.url})  # doctest: +SKIP
    """
    session.default().keys.gather()
    return session.default().portal.call(_uploaded, *_taken(file, name), provider)


async def aupload(file: Any, *, provider: str = "replicate", name: str | None = None) -> Upload:
    """`upload`, awaited."""
    session.default().keys.gather()
    taken = await asyncio.to_thread(_taken, file, name)
    portal = session.default().portal
    return await asyncio.wrap_future(portal.submit(_uploaded, *taken, provider))


async def _uploaded(data: bytes, name: str, mime: str, provider: str) -> Upload:
    settings, own = session.default().settings, session.default().registry
    backend = own.get(provider)
    send = getattr(backend, "upload", None)
    if send is None:
        able = [one for one in own.names() if hasattr(own.get(one), "upload")]
        raise InputError(f"{provider} takes no uploads.", hint=f"{', '.join(able)} takes them.")
    attempts, min_s, max_s = map(settings.get, ("retries", "retry_min_s", "retry_max_s"))
    sending = functools.partial(send, name, data, mime)
    url = await retrying("upload", sending, Policy(attempts, min_s, max_s), lambda *_: None)
    return Upload(url, name, mime, len(data), provider)


def _taken(file: Any, name: str | None) -> tuple[bytes, str, str]:
    """Return bytes, name and media type of what is to be uploaded; the name says the type."""
    data, own = _read(file)
    found = pixels.sniff(data)
    mime = found or mimetypes.guess_type(name or own)[0] or "application/octet-stream"
    called = Path(name or own).name or "file"
    if not Path(called).suffix:  # some models look at the extension
        called += mimetypes.guess_extension(mime) or ""
    return data, called[-255:], mime


def _read(file: Any) -> tuple[bytes, str]:
    if (
        isinstance(file, str | Path)
        and not inputs.is_url(file)
        and not str(file).startswith("data:")
    ):
        path = Path(file).expanduser()
        if not path.is_file():
            folder = path.parent
            near = (
                [str(path.with_name(i.name)) for i in folder.iterdir()] if folder.is_dir() else []
            )
            raise UnknownNameError("file", str(file), known=near)
        return _cleaned(path.read_bytes(), path.name)
    if isinstance(file, bytes | bytearray):
        return _cleaned(bytes(file), "file")
    if hasattr(file, "read") and not hasattr(file, "url"):
        data = file.read()
        if not isinstance(data, bytes):
            raise InputError("the file is open as text.", hint="Open it with mode 'rb'.")
        return _cleaned(data, Path(str(getattr(file, "name", "") or "file")).name)
    return inputs.read(file)


def _cleaned(data: bytes, name: str) -> tuple[bytes, str]:
    """A picture goes without its location data, as one does that is edited."""
    picture = str(pixels.sniff(data)).startswith("image/")
    return (inputs.clean(data, name) if picture else data), name
