"""The panel: a form that makes images, and under it what it has made.

Stage: the front end, opened by `%imgpanel`. Comes in: what the page asks, the values of its form. Goes out: a
cell's text, which is read as a cell is and handed to the session. The form is the state: `panel.form` gives it
back, and a page that is loaded again finds it, and all runs, as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets

from nbimg import models, session
from nbimg.credentials.given import PROVIDER_KEYS
from nbimg.display import words
from nbimg.errors import InputError, NbimgError
from nbimg.media import inputs, pixels
from nbimg.notebook.ascell import written
from nbimg.notebook.browse import Browse, output_store
from nbimg.notebook.form import EMPTY, fields, form_of, line_of
from nbimg.notebook.reference import reference, references
from nbimg.notebook.runs import Runs
from nbimg.notebook.widget import Answer, Widget, script, style
from nbimg.planning import catalog
from nbimg.planning.choose import choose
from nbimg.results import ResultSet
from nbimg.session import CallOptions, Session
from nbimg.store.index import Index
from nbimg.store.marks import Marks
from nbimg.text import cell
from nbimg.text.expand import Expansion, expand
from nbimg.types import Capabilities, ImageRecord, ModelRef, Request

__all__ = ["Panel", "open_panel"]

_HISTORY = 200
_LARGEST_INPUT = 50_000_000


class Panel(Widget):
    """A panel.

    Args:
        made_by: Where the images are made.
        names: The variables of the notebook; `_img` of them will hold what was made last.
        prompt: What stands in the form at first.
    """

    _esm = script("panel")
    _css = style("base", "wall", "viewer", "panel")

    form = traitlets.Dict(help="The values of the form.").tag(sync=True)

    said = "nbimg's panel needs its kernel: run %imgpanel again."

    def __init__(self, made_by: Session, names: dict[str, Any], prompt: str = "") -> None:
        self._session, self._names = made_by, names
        store = output_store(made_by.settings)
        self._store = store
        self._browse = Browse(Index(store.folder), Marks(store.hidden), store.thumb)
        self._runs = Runs(self.tell, self._browse, store.thumb)
        self._parts: dict[str, list[bytes]] = {}
        self._lock = threading.Lock()
        super().__init__(form={**EMPTY, "prompt": prompt})

    def answers(self) -> Mapping[str, Callable[..., Answer | Any]]:
        """Return what the page can ask."""
        return {
            **self._browse.answers(),
            "as_cell": self.as_cell,
            "cancel": self._runs.cancel,
            "drop": self._runs.drop,
            "fields": self.fields,
            "generate": self.generate,
            "history": self.history,
            "models": self.models,
            "plan": self.plan,
            "recall": self.recall,
            "references": self.references,
            "runs": self._runs.told,
            "search_models": self.search_models,
            "upload": self.upload,
        }

    @property
    def results(self) -> ResultSet | None:
        """What the last run has made; None before it has ended."""
        return self._runs.last

    # ------------------------------------------------------------------ the cell

    def as_cell(self, form: Mapping[str, Any]) -> str:
        """Return the cell that does what the form says."""
        return written("imggen", line_of(form), str(form.get("prompt", "")))

    def _asked(self, form: Mapping[str, Any]) -> tuple[list[Request], CallOptions]:
        """Read the cell of a form as the notebook would."""
        spec = cell.parse(line_of(form), str(form.get("prompt", "")))
        found: Expansion = expand(spec, self._names)
        requests = [
            request.but(image=tuple(inputs.expand_paths(request.image, self._names)))
            for request in found.requests
        ]
        options = CallOptions(rows=found.rows, columns_labels=found.columns, groups=found.blocks)
        return requests, options

    def plan(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Generate would do: how many images, for how much, how long; or why it cannot."""
        try:
            requests, options = self._asked(form)
            plan, forecast = self._session.plan(requests, options)
        except NbimgError as error:
            return {"error": error.message, "hint": error.hint or ""}
        if plan.refused and not plan.tasks:
            first = plan.refused[min(plan.refused)]
            return {"error": first.message, "hint": first.hint or ""}
        images = sum(request.n for request in requests)
        sent = sum(task.request.n for task in plan.tasks)
        parts = [words.count(images, "image")]
        if stored := images - sent - sum(requests[i].n for i in plan.refused):
            parts.append("from the store, at no cost" if not sent else f"{stored} from the store")
        if sent:
            cost = plan.cost_usd
            parts.append("price unknown" if cost is None else _about(words.money(cost), cost > 0))
            if seconds := self._seconds(plan.tasks):
                parts.append(f"about {words.duration(max(1.0, round(seconds)))}")
        notices = [notice for task in plan.tasks for notice in task.notices]
        if plan.refused:
            first = plan.refused[min(plan.refused)]
            notices = [
                f"{words.count(len(plan.refused), 'task')} cannot be sent: {first}",
                *notices,
            ]
        return {
            "text": ", ".join(parts),
            "images": images,
            "models": list(dict.fromkeys(str(task.ref) for task in plan.tasks)),
            "prompts": list(dict.fromkeys(request.prompt for request in requests))[:60],
            "rows": list(options.rows),
            "columns": list(options.columns_labels),
            "notices": [*dict.fromkeys(notices), *([forecast] if forecast else [])][:6],
            "note": plan.note or "",
        }

    def _seconds(self, tasks: Sequence[Any]) -> float | None:
        """How long it takes, going by what these models took before."""
        total = 0.0
        for ref in dict.fromkeys(task.ref for task in tasks):
            each = self._browse.pace(ref.full)
            if each is None:
                return None
            calls = sum(task.request.n for task in tasks if task.ref == ref)
            at_once = max(1, self._session.registry.get(ref.provider).concurrency)
            total = max(total, -(-calls // at_once) * each)
        return total

    def generate(self, form: Mapping[str, Any]) -> str:
        """Make what the form says; the answer is the id of the run."""
        requests, options = self._asked(form)
        job = self._session.submit(requests, options)
        self._runs.begin(job, requests, dict(form), self._keep)
        return job.id

    def _keep(self, results: ResultSet) -> None:
        self._names["_img"] = results

    # ------------------------------------------------------------------ models

    def models(self) -> list[dict[str, Any]]:
        """Return the models of the catalogue, those that can be used first."""
        found = [_entry(alias, entry, self._session) for alias, entry in catalog.entries().items()]
        return sorted(found, key=lambda model: not model["ready"])

    def search_models(self, text: str) -> list[dict[str, Any]]:
        """Return what the providers' own search finds."""
        found = []
        for provider in self._session.registry.names():
            if provider not in PROVIDER_KEYS or self._session.keys.find(provider) is None:
                continue
            if hasattr(self._session.registry.get(provider), "search"):
                found += [
                    {
                        "name": f"{provider}:{row.model}",
                        "full": f"{provider}:{row.model}",
                        "provider": provider,
                        "about": row.about,
                        "ready": True,
                        "makes": True,
                        "edits": None,
                        "price": "",
                    }
                    for row in models.search(text, self._session, provider=provider)
                ]
        return found

    def fields(self, model: str = "", *, edit: bool = False) -> dict[str, Any]:
        """Return the form of a model; of the one that would be chosen when none is named."""
        made_by = self._session
        task = "edit" if edit else "generate"
        first = model.partition(",")[0].strip() or None
        choice = choose(first, task, made_by.settings, made_by.keys, made_by.registry)
        can = made_by.portal.call(_takes, made_by, choice.ref)
        return {
            "model": str(choice.ref),
            "full": choice.ref.full,
            "fields": fields(can),
            "negative": "negative" in can.options or can.open,
            "seed": "seed" in can.options,
            "images": 1000 if can.open else can.max_images,
            "open": can.open,
            "about": can.about_vocabulary,
        }

    # ------------------------------------------------------------------ references

    def upload(
        self, name: str, part: int, parts: int, key: str, data: list[bytes] | None = None
    ) -> dict[str, Any] | None:
        """Take a part of a file that was dropped, pasted or picked; the last one is answered with the image."""
        with self._lock:
            held = self._parts.setdefault(key, [])
            held += data or []
            whole = b"".join(held)
            if len(whole) > _LARGEST_INPUT:
                del self._parts[key]
                raise InputError(f"{name} is larger than {_LARGEST_INPUT // 1_000_000} MB.")
            if part < parts - 1:
                return None
            del self._parts[key]
        taken = self._store.take(inputs.clean(whole, name), name)
        return reference(Path(taken.path), name, taken.sha256, taken.width, taken.height)

    def refer(self, records: Sequence[ImageRecord]) -> None:
        """Add images of a gallery to the references of the form."""
        self.tell({"event": "refer", "refs": references(records)})

    def references(self, refs: Sequence[Mapping[str, Any]]) -> Answer:
        """Return which references are there still; beside it their small pictures."""
        data = []
        for ref in refs:
            record = ImageRecord(Path(ref["path"]), sha256=str(ref.get("sha256") or ""))
            data.append(
                (self._store.thumb(record, pixels.THUMB_SIDE_PX) or b"") if record.sha256 else b""
            )
        return [bool(one) for one in data], data

    # ------------------------------------------------------------------ history

    def history(self, text: str = "") -> list[dict[str, Any]]:
        """Return the prompts of the folder, each once, the newest first."""
        self._browse.look()
        found: dict[str, dict[str, Any]] = {}
        wanted = text.casefold().split()
        for entry in reversed(self._browse.source.entries):
            if entry.prompt in found:
                found[entry.prompt]["count"] += 1
            elif len(found) < _HISTORY and all(word in entry.prompt.casefold() for word in wanted):
                about = {"number": entry.number, "prompt": entry.prompt, "model": entry.model}
                found[entry.prompt] = {**about, "at": entry.at_utc, "count": 1}
        return list(found.values())

    def recall(self, number: int) -> dict[str, Any]:
        """Return the form that asks for an image again."""
        entry = self._browse.source.entry(number)
        result = self._browse.source.result(entry)
        form = form_of(result.request, result.model, entry.seed)
        form["refs"] = [
            reference(Path(i.path), i.source or Path(i.path).name, i.sha256, i.width, i.height)
            for i in result.request.image
            if hasattr(i, "sha256") and getattr(i, "path", None)
        ]
        return form


def open_panel(names: dict[str, Any], prompt: str = "") -> Panel:
    """Return a panel.

    Args:
        names: The variables of the notebook.
        prompt: What stands in it at first.
    """
    return Panel(session.default(), names, prompt.strip())


def _about(text: str, costs: bool) -> str:
    return f"about {text}" if costs else "at no cost"


def _entry(alias: str, entry: catalog.Entry, made_by: Session) -> dict[str, Any]:
    provider = entry.ref.provider
    local = provider not in PROVIDER_KEYS
    price = "" if entry.price_usd is None else words.money(entry.price_usd)
    return {
        "name": alias,
        "full": entry.ref.full,
        "provider": provider,
        "about": entry.about,
        "ready": local or made_by.keys.find(provider) is not None,
        "local": local,
        "makes": entry.makes,
        "edits": entry.edits,
        "price": "free" if local else price,
        "priced": entry.price_at or "",
    }


async def _takes(made_by: Session, ref: ModelRef) -> Capabilities:
    return await made_by.registry.get(ref.provider).capabilities(ref.model)
