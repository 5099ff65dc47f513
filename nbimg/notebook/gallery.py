"""The gallery: everything that was made in a folder, or the results at hand, to be looked through.

Stage: the front end, opened by `%imggallery` and `r.gallery()`. Comes in: what the page asks (see `browse`),
and what is to be made from an image. Goes out: answers, and requests to the session. The text of its search is
its state: `gallery.query` gives it back, and sets it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import traitlets

from nbimg import session
from nbimg.errors import InputError
from nbimg.notebook.ascell import as_cell, near
from nbimg.notebook.browse import Browse, output_store
from nbimg.notebook.editors import editors, masking
from nbimg.notebook.watch import Watch
from nbimg.notebook.widget import Answer, Widget, living, script, style
from nbimg.results import ResultSet
from nbimg.session import CallOptions, Session
from nbimg.store.files import Store
from nbimg.store.index import Index, Listed, Source
from nbimg.store.marks import Marks
from nbimg.types import Request

__all__ = ["Gallery", "of_results", "open_gallery"]


class Gallery(Widget):
    """A gallery.

    Args:
        source: Where the images are from.
        store: The output folder.
        made_by: Where more images are made.
        query: What is looked for.
    """

    _esm = script("gallery")
    _css = style("base", "wall", "viewer", "gallery")

    query = traitlets.Unicode("", help="What is looked for, as typed.").tag(sync=True)
    view = traitlets.Dict(help="Height of the rows, what is in focus.").tag(sync=True)
    whole = traitlets.Bool(True, help="Whether it shows a whole folder.").tag(sync=True)

    said = "nbimg's gallery needs its kernel: run %imggallery again."

    def __init__(self, source: Source, store: Store, made_by: Session, query: str = "") -> None:
        self._browse = Browse(source, Marks(store.hidden), store.thumb)
        self._store, self._session = store, made_by
        self._watch = Watch(self.tell)
        super().__init__(query=query, whole=isinstance(source, Index))

    def answers(self) -> Mapping[str, Callable[..., Answer | Any]]:
        """Return what the page can ask."""
        return {
            **self._browse.answers(),
            "cancel": self._watch.cancel,
            "edit": self.edit,
            "editors": self.editors,
            "jobs": self._watch.jobs,
            "masked_cell": self.masked_cell,
            "more": self.more,
            "reference": self.reference,
        }

    def more(self, number: int, n: int = 1) -> str:
        """Make more like an image: the same request with a new seed; the answer is the id of the job."""
        entry = self._browse.source.entry(number)
        result = self._browse.source.result(entry)
        request = result.request.but(
            n=n, seed=secrets.randbelow(2**31), model=result.model or result.request.model
        )
        return self._make(request)

    def edit(
        self, number: int, prompt: str, model: str = "", data: list[bytes] | None = None
    ) -> str:
        """Edit an image with words, where a mask is white or everywhere; the answer is the id of the job."""
        return self._make(self._edit(number, prompt, model, data))

    def masked_cell(
        self, number: int, prompt: str, model: str = "", data: list[bytes] | None = None
    ) -> str:
        """Return the cell that does what `edit` would."""
        return as_cell(self._edit(number, prompt, model, data), model=None, seed=None)

    def _edit(self, number: int, prompt: str, model: str, data: list[bytes] | None) -> Request:
        if not prompt.strip():
            raise InputError("there is no prompt.", hint="Say what is to change.")
        record = self._browse.record(self._browse.source.entry(number))
        mask = self._store.take(data[0], "mask.png") if data else None
        if mask is not None:
            model = masking(self._session, model)
        return Request(prompt, model=model or None, image=(record,), mask=mask)

    def editors(self) -> list[dict[str, Any]]:
        """Return the models that edit and can be used now, and whether each takes a mask."""
        return [asdict(one) for one in editors(self._session)]

    def reference(self, numbers: list[int]) -> str:
        """Give images to the panels that are open; the answer says so, or is a cell where there is none."""
        records = [self._browse.record(self._browse.source.entry(number)) for number in numbers]
        panels = living("Panel")
        for panel in panels:
            panel.refer(records)
        if panels:
            return ""
        images = " ".join(f'-i "{near(r.path)}"' for r in records if r.path is not None)
        return f"%%imggen {images}\n"

    def _make(self, request: Request) -> str:
        options = CallOptions(task="edit" if request.image else "generate", cache=False)
        job = self._session.submit([request], options)
        self._watch.begin(job)
        return job.id


def open_gallery(query: str = "") -> Gallery:
    """Return a gallery of the output folder.

    Args:
        query: What is looked for, see `nbimg.store.search`.
    """
    made_by = session.default()
    store = output_store(made_by.settings)
    return Gallery(Index(store.folder), store, made_by, query.strip())


def of_results(results: ResultSet) -> Gallery:
    """Return a gallery of results that are at hand."""
    made_by = session.default()
    return Gallery(Listed(list(results)), output_store(made_by.settings), made_by)
