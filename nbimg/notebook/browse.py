"""Look through images: searches, tiles, full pictures, details, stars, the trash, archives.

Stage: the front end, below gallery and panel, which both browse. Comes in: what the page asks. Goes out: JSON
data and bytes. Any thread may ask. Must not: make images, or know a widget.
"""

from __future__ import annotations

import io
import json
import statistics
import threading
import time
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbimg.config import Settings
from nbimg.display import tile as tiles
from nbimg.display.grid import Thumb
from nbimg.errors import InputError, NbimgError, ResultMissingError
from nbimg.media import pixels
from nbimg.notebook import details
from nbimg.notebook.ascell import as_cell, near
from nbimg.notebook.reference import references
from nbimg.notebook.widget import Answer
from nbimg.store.files import Store
from nbimg.store.index import Entry, Source
from nbimg.store.marks import Marks
from nbimg.store.search import parse
from nbimg.types import ImageRecord, InputImage, Status

__all__ = ["Browse", "output_store"]

#: The small pictures of a wall, their longer side in pixels.
SIDE_PX = pixels.THUMB_SIDE_PX
#: So many of the last images say how long one takes.
PACE_OF = 30
#: An archive that is larger stays on this machine.
LARGEST_ZIP = 200_000_000
#: What browsers show as it is.
_SHOWN = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/bmp")
_STATUSES = list(Status)
_STAR, _VIDEO, _NO_IMAGE = 8, 16, 32


class Browse:
    """What one gallery looks through.

    Args:
        source: Where the images are from.
        marks: Stars and trash of the folder.
        thumb: Gives the small picture of an image.
    """

    def __init__(self, source: Source, marks: Marks, thumb: Thumb) -> None:
        self.source = source
        self.marks = marks
        self._thumb = thumb
        self._lock = threading.Lock()
        self._version = 0

    def answers(self) -> dict[str, Callable[..., Answer | Any]]:
        """Return what can be asked."""
        return {
            "cell": self.cell,
            "details": self.details,
            "full": self.full,
            "look": self.look,
            "query": self.query,
            "refer_to": self.refer_to,
            "restore": self.restore,
            "star": self.star,
            "tiles": self.tiles,
            "trash": self.trash,
            "zip": self.zip,
        }

    # ------------------------------------------------------------------ the wall

    def look(self) -> int:
        """Look for what is new; a number that changes with it."""
        with self._lock:
            if any([self.source.refresh(), self.marks.refresh()]):
                self._version += 1
            return self._version

    def query(self, text: str = "") -> Answer:
        """Search.

        Args:
            text: See `nbimg.store.search`.

        Returns:
            What there is as a whole; beside it, an entry each: its number (32 bits), its width as
            thousandths of its height (16 bits), its flags (8 bits: status, 8 star, 16 video, 32 none).
        """
        version = self.look()
        starred, trashed, entries = self.marks.starred, self.marks.trashed, self.source.entries
        found = parse(text).find(entries, starred, trashed)
        numbers = array("I", [entry.number for entry in found])
        ratios = array("H", [_ratio(entry) for entry in found])
        flags = bytes(_flags(entry, entry.key in starred) for entry in found)
        there = [e for e in entries if e.variant is not None and e.key not in trashed]
        sizes = Counter(f"{e.width}x{e.height}" for e in there if e.width)
        about = {
            "version": version,
            "total": len(found),
            "all": len(there),
            "trashed": len(trashed),
            "models": _counted(tiles.model_name(e.model) for e in there),
            "sizes": sizes.most_common(12),
            "statuses": _counted(e.status for e in entries if e.key not in trashed),
        }
        return about, [numbers.tobytes(), ratios.tobytes(), flags]

    def tiles(self, numbers: Sequence[int]) -> Answer:
        """Return what the tiles of a window show; beside it their small pictures, empty where there is none."""
        entries = [self.source.entry(number) for number in numbers]
        return [self._tile(entry) for entry in entries], [self._small(entry) for entry in entries]

    def _tile(self, entry: Entry) -> dict[str, Any]:
        sign, word = tiles.STATUS[Status(entry.status)]
        return {
            "number": entry.number,
            "prompt": entry.prompt,
            "model": tiles.model_name(entry.model),
            "status": entry.status,
            "sign": sign,
            "word": word,
            "at": entry.at_utc,
            "width": entry.width,
            "height": entry.height,
            "seed": entry.seed,
            "kind": entry.kind,
            "image": entry.variant is not None,
            "star": entry.key in self.marks.starred,
        }

    def _small(self, entry: Entry) -> bytes:
        """Return the small picture; the file is only looked for where it was not made before."""
        if entry.variant is None:
            return b""
        blank = ImageRecord(Path(entry.key), kind=entry.kind, sha256=entry.key)
        data = self._thumb(blank, SIDE_PX)
        if data is None:
            try:
                data = self._thumb(self.record(entry), SIDE_PX)
            except (KeyError, NbimgError):
                data = None
        return data or b""

    def numbers(self, keys: Iterable[str | None]) -> list[int | None]:
        """Return the numbers of the newest images with these keys."""
        self.look()
        known = {
            entry.key: entry.number for entry in self.source.entries if entry.variant is not None
        }
        return [known.get(key or "") for key in keys]

    def pace(self, model: str) -> float | None:
        """Return how long an image of a model took of late, in seconds; None where none was made."""
        self.look()
        lately = [e.seconds for e in self.source.entries if e.model == model and e.seconds > 0]
        return statistics.median(lately[-PACE_OF:]) if lately else None

    # ------------------------------------------------------------------ one image

    def record(self, entry: Entry) -> ImageRecord:
        """Return the record of an image, where its file is now.

        Raises:
            ResultMissingError: When there is none.
        """
        result = self.source.result(entry)
        if entry.variant is None or entry.variant >= len(result.images):
            raise ResultMissingError("this task has no image.")
        record = result.images[entry.variant]
        if record.path is None or record.path.exists():
            return record
        moved = self.marks.find(entry.key, record.path)
        return record if moved is None else replace(record, path=moved)

    def refer_to(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return images as a panel refers to them."""
        return references(self.record(self.source.entry(number)) for number in numbers)

    def full(self, number: int) -> Answer:
        """Return the whole picture, as a browser can show it."""
        record = self.record(self.source.entry(number))
        data, mime = record.read(), record.mime
        if record.kind == "image" and mime not in _SHOWN:
            data, mime = (
                pixels.encode(pixels.decode(data, name=str(record.path)), "image/png"),
                "image/png",
            )
        return {"mime": mime, "kind": record.kind}, [data]

    def details(self, number: int) -> Answer:
        """Return everything that is known of an image; beside it the small pictures of its inputs."""
        entry = self.source.entry(number)
        result = self.source.result(entry)
        record = self.record(entry) if entry.variant is not None else None
        inputs = [*result.request.image, *([result.request.mask] if result.request.mask else [])]
        about = {
            **self._tile(entry),
            "price": details.price(result),
            "rows": list(details.rows(entry, result, record)),
            "attempts": list(details.attempts(result)),
            "notices": list(result.notices),
            "error": str(result.error) if result.error else "",
            "inputs": [str(getattr(image, "source", None) or image) for image in inputs],
            "masked": result.request.mask is not None,
        }
        return about, [self._small_input(image) for image in inputs]

    def _small_input(self, image: Any) -> bytes:
        if not isinstance(image, InputImage):
            return b""
        record = ImageRecord(Path(image.path), mime=image.mime, sha256=image.sha256)
        return self._thumb(record, SIDE_PX) or b""

    def cell(self, number: int) -> str:
        """Return the cell that makes an image again."""
        entry = self.source.entry(number)
        result = self.source.result(entry)
        return as_cell(result.request, model=result.model or None, seed=entry.seed)

    # ------------------------------------------------------------------ marks

    def star(self, numbers: Sequence[int], on: bool) -> None:
        """Give images a star, or take it away."""
        self.marks.star(self._keys(numbers), on=on)

    def trash(self, numbers: Sequence[int]) -> int:
        """Move images to the trash, with all that have the same content; return how many these are."""
        keys = set(self._keys(numbers))
        files: dict[str, list[Path]] = {key: [] for key in keys}
        moved = [entry for entry in self.source.entries if entry.key in keys]
        for entry in moved:
            if entry.variant is not None:
                path = self.source.result(entry).images[entry.variant].path
                if path is not None and path not in files[entry.key]:
                    files[entry.key].append(path)
        self.marks.discard(files)
        return len(moved)

    def restore(self, numbers: Sequence[int]) -> None:
        """Take images out of the trash."""
        self.marks.restore(self._keys(numbers))

    def _keys(self, numbers: Sequence[int]) -> list[str]:
        return list(dict.fromkeys(self.source.entry(number).key for number in numbers))

    # ------------------------------------------------------------------ away with them

    def zip(self, numbers: Sequence[int]) -> Answer:
        """Return an archive of images, with what they were made of; one that is too large stays here.

        Raises:
            InputError: When none of them has a file.
        """
        target = Path.cwd() / time.strftime("nbimg-%Y%m%d-%H%M%S.zip")
        kept = [self.source.entry(number) for number in numbers]
        records = [self.record(entry) for entry in kept if entry.variant is not None]
        large = sum(r.path.stat().st_size for r in records if r.path and r.path.exists())
        buffer = io.BytesIO()
        with zipfile.ZipFile(target if large > LARGEST_ZIP else buffer, "w") as archive:
            told, names = [], Counter[str]()
            for entry in kept:
                if entry.variant is None or not (record := self.record(entry)).path:
                    continue
                path = Path(str(record.path))
                names[path.name] += 1
                many = names[path.name]
                name = path.name if many == 1 else f"{path.stem}-{many}{path.suffix}"
                archive.writestr(name, record.read())
                told.append({"file": name, **self.source.result(entry).to_dict()})
            archive.writestr("results.json", json.dumps(told, indent=1, ensure_ascii=False))
        if not told:
            raise InputError("none of these images has a file.")
        if large > LARGEST_ZIP:
            return {"name": near(target), "count": len(told)}, []
        return {"name": target.name, "count": len(told)}, [buffer.getvalue()]


def output_store(settings: Settings) -> Store:
    """Return the output folder, as the settings say now."""
    return Store(Path(settings.get("output_dir")).expanduser().absolute())


def _ratio(entry: Entry) -> int:
    if not entry.width or not entry.height:
        return 1000
    return max(1, min(65535, round(1000 * entry.width / entry.height)))


def _flags(entry: Entry, star: bool) -> int:
    flags = _STATUSES.index(Status(entry.status)) | (_STAR if star else 0)
    flags |= _VIDEO if entry.kind == "video" else 0
    return flags | (_NO_IMAGE if entry.variant is None else 0)


def _counted(values: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(values).most_common()
