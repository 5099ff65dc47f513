"""The magics: text of a cell in, a grid out.

Stage: the front end. Comes in: `(line, cell)`. Goes out: requests to the session, the result to the
notebook. Must not: parse, plan or draw by itself; each is a module of its own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import traitlets
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from nbimg import catalog, inputs, session
from nbimg import cell as cells
from nbimg.config import SETTINGS, Setting
from nbimg.display.dryrun import render_plan
from nbimg.errors import GenerationError, InputError, NbimgError, SettingError
from nbimg.expand import expand
from nbimg.keys import PROVIDER_KEYS
from nbimg.notebook.live import Live
from nbimg.results import ResultSet
from nbimg.session import CallOptions, Session
from nbimg.types import Request, Status
from nbimg.usage import render_help

__all__ = ["NbImg", "StoppedError"]

log = logging.getLogger("nbimg")


class StoppedError(KeyboardInterrupt):
    """Stop ended the cell; one line in place of a traceback, and Run All stops too."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def _trait(setting: Setting) -> traitlets.TraitType[Any, Any]:
    kinds: Mapping[type, type[traitlets.TraitType[Any, Any]]] = {
        str: traitlets.Unicode,
        int: traitlets.Integer,
        float: traitlets.Float,
        dict: traitlets.Dict,
    }
    kind = kinds[setting.type]
    trait = kind(default_value=setting.default, allow_none=True, help=setting.help)
    return trait.tag(config=True)


#: One trait a row of the table of settings, so that `%config NbImg` lists them all.
_Configured = type("_Configured", (Magics,), {s.name: _trait(s) for s in SETTINGS})


@magics_class
class NbImg(_Configured):  # type: ignore[misc, valid-type]  # made from the table of settings
    """Make and edit images in cells."""

    def __init__(self, shell: Any, own: Session | None = None) -> None:
        self._session = own or session.default()
        super().__init__(shell, parent=None)  # with a parent, one value that is wrong stops it all
        self._take_profile(shell.config)
        with self.cross_validation_lock:  # the environment and the files are shown, not copied
            for setting in SETTINGS:
                value, source = self._session.settings.find(setting.name)
                if source != "default":
                    setattr(self, setting.name, value)

    def _take_profile(self, config: Any) -> None:
        """Take over what ipython_config.py says, and what `%config` said before a reload."""
        section = config.get("NbImg", {})
        for setting in SETTINGS:
            if setting.name in section:
                try:
                    setattr(self, setting.name, section[setting.name])
                except traitlets.TraitError as error:
                    log.warning("NbImg.%s was left out: %s", setting.name, error)

    @traitlets.validate(*(setting.name for setting in SETTINGS))
    def _checked(self, proposal: Any) -> Any:
        try:
            self._session.settings.set(proposal["trait"].name, proposal["value"])
        except SettingError as error:
            raise traitlets.TraitError(str(error)) from error
        return proposal["value"]

    @no_var_expand
    @line_cell_magic
    def imggen(self, line: str, cell: str | None = None) -> ResultSet | None:
        """Make images from the text of the cell."""
        return self._run("imggen", line, cell)

    @no_var_expand
    @line_cell_magic
    def imgedit(self, line: str, cell: str | None = None) -> ResultSet | None:
        """Edit images with the text of the cell."""
        return self._run("imgedit", line, cell)

    @no_var_expand
    @line_magic
    def imgmodels(self, line: str) -> None:
        """List the models that have a short name: what each takes, and whether its key is there.

        %imgmodels            all of them
        %imgmodels PATTERN    those with the pattern in their names or descriptions, for example flux
        """
        pattern = line.strip().lower()
        if pattern in ("-h", "--help"):
            print(inspect.getdoc(self.imgmodels))
            return
        rows = []
        for alias, entry in catalog.entries().items():
            if pattern in f"{alias} {entry.ref.full} {entry.about}".lower():
                provider = entry.ref.provider
                needs = provider in PROVIDER_KEYS and self._session.keys.find(provider) is None
                what = " ".join(["makes"] * entry.makes + ["edits"] * entry.edits)
                key = "no key" if needs else "ready"
                rows.append(f"{alias:22} {key:7} {what:12} {entry.about}")
        print("\n".join(rows) or f"no model matches {pattern!r}. %imgmodels lists all.")

    def _run(self, magic: str, line: str, cell: str | None) -> ResultSet | None:
        try:
            return self._made(magic, line, cell)
        except NbimgError as error:
            error.debug = "--debug" in line.split()
            raise
        except StoppedError:
            raise
        except KeyboardInterrupt:  # before anything was sent, or while a plan was made
            raise StoppedError("Stopped.") from None

    def _made(self, magic: str, line: str, cell: str | None) -> ResultSet | None:
        spec = cells.parse(line, cell, magic=magic)
        call = dict(spec.call)
        if call.get("help"):
            print(render_help(magic))
            return None
        names = self.shell.user_ns
        expansion = expand(spec, names)
        requests = [_with_images(request, names) for request in expansion.requests]
        options = CallOptions(
            rows=expansion.rows,
            columns_labels=expansion.columns,
            share_seed=bool(expansion.rows or expansion.columns),
            concurrency=call.get("concurrency"),
            retries=call.get("retries"),
            timeout=call.get("timeout"),
            url_only=bool(call.get("url_only")),
            columns=call.get("columns"),
        )
        if magic == "imgedit":
            images = inputs.expand_paths(spec.images, names)
            requests = _edits(requests, images, combine=bool(call.get("combine")))
            options = replace(options, task="edit", share_seed=True, rows=(), columns_labels=())
        if call.get("dry_run"):
            print(render_plan(self._session.plan(requests, options)))
            return None
        show = self._session.settings.get("display", call.get("display"))
        return self._shown(requests, options, call, show, line_form=cell is None)

    def _shown(
        self,
        requests: Sequence[Request],
        options: CallOptions,
        call: Mapping[str, Any],
        show: str,
        *,
        line_form: bool,
    ) -> ResultSet | None:
        live = Live(quiet=show != "live", alone=not line_form)
        live.expect(requests)
        job = self._session.submit(requests, options)
        try:
            results = live.watch(job)
        except KeyboardInterrupt:
            if not job.done:
                live.finish(None)
                message = "Stopped; the provider has not confirmed it. What is done is on disk."
                raise StoppedError(message) from None
            results = job.results
            self._keep(results, call)
            live.finish(None if show == "none" else results)
            kept = len(results.records)
            raise StoppedError(f"Stopped: {kept} image{'s' * (kept != 1)} kept.") from None
        except NbimgError:
            live.finish(None)
            raise
        self._keep(results, call)
        live.finish(None if show == "none" or line_form else results)
        _judge(results, strict=bool(call.get("strict")))
        return results if line_form else None

    def _keep(self, results: ResultSet, call: Mapping[str, Any]) -> None:
        names = {"_img": results}
        if call.get("var"):
            names[str(call["var"])] = results
        self.shell.push(names)


def _with_images(request: Request, names: Mapping[str, Any]) -> Request:
    """Resolve what `-i` and `--mask` name: files, folders, addresses, variables."""
    if not request.image and request.mask is None:
        return request
    mask = None
    if request.mask is not None:
        mask = inputs.expand_paths([request.mask], names)[0]
    return request.but(image=tuple(inputs.expand_paths(request.image, names)), mask=mask)


def _edits(requests: Sequence[Request], images: Sequence[Any], *, combine: bool) -> list[Request]:
    """Pair prompts and inputs: one prompt for all, or as many prompts as inputs, in order."""
    if combine:
        return [request.but(image=(*images, *request.image)) for request in requests]
    if len(requests) == 1:
        requests = [requests[0]] * len(images)
    if len(requests) != len(images):
        raise InputError(
            f"{len(requests)} prompts do not pair with {len(images)} images.",
            hint="Give one prompt for all, or one for each image.",
        )
    return [
        request.but(image=(image, *request.image))
        for request, image in zip(requests, images, strict=True)
    ]


def _judge(results: ResultSet, *, strict: bool) -> None:
    """Fail the cell when every task failed, or under `--strict` when any did."""
    bad = [result for result in results if result.status is not Status.OK]
    fatal = [result for result in bad if not result.images]
    if not bad or (not strict and len(fatal) < len(results)):
        return
    first = bad[0]
    message = first.error.message if first.error else f"the task was {first.status}."
    hint = first.error.hint if first.error else None
    if len(results) > 1:
        message = f"{len(bad)} of {len(results)} tasks failed, the first: {message}"
    cause = first.error.exception() if first.error else None
    raise GenerationError(message, result=first, hint=hint) from cause


NbImg.imggen.__doc__ = render_help("imggen")
NbImg.imgedit.__doc__ = render_help("imgedit")
