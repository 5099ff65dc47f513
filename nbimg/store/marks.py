"""What a person says about images: which are starred, which are in the trash.

Stage: beside the journal, in a file of its own that is only ever appended to, a line a change, so that several
kernels may write it at once and the last word counts. Comes in: keys of images (see `Entry.key`). Goes out:
which have which mark. A file that is thrown away is moved below `.nbimg/trash` and can be put back. Must not:
delete anything for good.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from nbimg.errors import StoreWriteError

__all__ = ["Marks", "starred"]

_NAME = "marks.jsonl"
_TRASH = "trash"


class Marks:
    """The marks of one output folder.

    Args:
        hidden: The folder that nbimg keeps for itself, `.nbimg`.

    Attributes:
        starred: Keys of the images with a star.
        trashed: Key → the files that were moved, each where it was and where it is, in `hidden`.
    """

    def __init__(self, hidden: Path) -> None:
        self._hidden = hidden
        self._path = hidden / _NAME
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self.starred: set[str] = set()
        self.trashed: dict[str, list[list[str]]] = {}
        self._read = (0, 0)  # number of the file, bytes that were read

    def refresh(self) -> bool:
        """Read what was said since; whether there was anything."""
        with self._lock:
            try:
                state = self._path.stat()
            except OSError:
                had = self._read != (0, 0)
                self._forget()
                return had
            number, done = self._read
            if state.st_ino != number or state.st_size < done:
                self._forget()
                done = 0
            if state.st_size == done:
                return False
            with self._path.open("rb") as file:
                file.seek(done)
                new = file.read()
            whole = new.rfind(b"\n") + 1  # the last line may be on its way
            for line in new[:whole].splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    self._take(json.loads(line))
            self._read = (state.st_ino, done + whole)
            return bool(whole)

    def _take(self, said: Mapping[str, Any]) -> None:
        key = str(said["key"])
        if "star" in said:
            (self.starred.add if said["star"] else self.starred.discard)(key)
        if "trash" in said:
            if said["trash"] is None:
                self.trashed.pop(key, None)
            else:
                self.trashed[key] = [list(map(str, pair)) for pair in said["trash"]]

    def star(self, keys: Iterable[str], *, on: bool) -> None:
        """Give images a star, or take it away.

        Raises:
            StoreWriteError: When it cannot be written.
        """
        self._say([{"key": key, "star": on} for key in keys])

    def discard(self, files: Mapping[str, Collection[Path]]) -> None:
        """Move images to the trash.

        Args:
            files: Key → the files of it that a person sees; none for what has no file.

        Raises:
            StoreWriteError: When it cannot be written; what was moved by then is in the trash.
        """
        for key, paths in files.items():
            moved = []
            try:
                for path in paths:
                    target = self._hidden / _TRASH / uuid.uuid4().hex[:12] / path.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):  # gone already
                        path.rename(target)
                        moved.append([self._short(path), self._short(target)])
            except OSError as error:
                raise _failed(error, self._hidden) from error
            finally:
                self._say([{"key": key, "trash": moved}])

    def restore(self, keys: Iterable[str]) -> None:
        """Put images back where they were; a name that is taken meanwhile is numbered.

        Raises:
            StoreWriteError: When it cannot be written.
        """
        self.refresh()
        for key in keys:
            for was, now in self.trashed.get(key, ()):
                source, target = self._long(now), self._long(was)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if source.exists():
                        source.rename(_free(target))
                        source.parent.rmdir()
                except OSError as error:
                    raise _failed(error, target) from error
            self._say([{"key": key, "trash": None}])

    def find(self, key: str, path: Path) -> Path | None:
        """Return where a file that was at `path` is now; None where it is not in the trash."""
        moved = (
            self._long(now) for was, now in self.trashed.get(key, ()) if self._long(was) == path
        )
        return next(moved, None)

    def _short(self, path: Path) -> str:
        """A path as it is written: inside the output folder relative to it, so that it may be moved."""
        root = self._hidden.parent
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def _long(self, text: str) -> Path:
        return self._hidden.parent / text

    def _say(self, lines: Iterable[Mapping[str, Any]]) -> None:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        try:
            self._hidden.mkdir(parents=True, exist_ok=True)
            # one write to the end: what several kernels say does not mix
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(file, data)
            finally:
                os.close(file)
        except OSError as error:
            raise _failed(error, self._path) from error
        self.refresh()


def starred(folders: Iterable[Path]) -> frozenset[str]:
    """Return the keys that have a star in any of these output folders."""
    found: set[str] = set()
    for folder in dict.fromkeys(folders):
        marks = Marks(folder / ".nbimg")
        marks.refresh()
        found |= marks.starred
    return frozenset(found)


def _free(path: Path) -> Path:
    number = 2
    free = path
    while free.exists():
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def _failed(error: OSError, path: Path) -> StoreWriteError:
    return StoreWriteError(
        f"{error.filename or path} cannot be written: {error.strerror or error}."
    )
