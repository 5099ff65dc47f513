"""The magics: text of a cell in, a grid out.

Stage: the front end, all that `%load_ext nbimg` imports. Comes in: `(line, cell)`. Goes out: what `cells`
makes of it. Must not: import what only a running cell needs.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import traitlets
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

from nbimg import config
from nbimg.config import SETTINGS, Setting
from nbimg.errors import SettingError
from nbimg.text.usage import render_help

__all__ = ["NbImg"]

log = logging.getLogger("nbimg")


def _trait(setting: Setting) -> traitlets.TraitType[Any, Any]:
    kinds: Mapping[type, type[traitlets.TraitType[Any, Any]]] = {
        str: traitlets.Unicode,
        int: traitlets.Integer,
        bool: traitlets.Bool,
        float: traitlets.Float,
        list: traitlets.List,
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

    def __init__(self, shell: Any) -> None:
        self._settings = config.kernel()
        super().__init__(shell, parent=None)  # with a parent, one value that is wrong stops it all
        self._take_profile(shell.config)
        with self.cross_validation_lock:  # the environment and the files are shown, not copied
            for setting in SETTINGS:
                self._show(setting)

    def _show(self, setting: Setting) -> None:
        """Let `%config` show what the environment and the files say; a mistake there is told once."""
        try:
            value, source = self._settings.find(setting.name)
        except SettingError as error:
            log.warning("%s", error)
            return
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
            self._settings.set(proposal["trait"].name, proposal["value"])
        except SettingError as error:
            raise traitlets.TraitError(str(error)) from error
        return proposal["value"]

    @no_var_expand
    @line_cell_magic
    def imggen(self, line: str, cell: str | None = None) -> Any:
        """Make images from the text of the cell."""
        return self._run("imggen", line, cell)

    @no_var_expand
    @line_cell_magic
    def imgedit(self, line: str, cell: str | None = None) -> Any:
        """Edit images with the text of the cell."""
        return self._run("imgedit", line, cell)

    @no_var_expand
    @line_magic
    def imgmodels(self, line: str) -> None:
        """List the models that have a short name: what each takes, and whether its key is there.

        %imgmodels            all of them
        %imgmodels PATTERN    those with the pattern in their names or descriptions, for example flux
        %imgmodels --load NAME      load a local model now, fetch it where it is not on this machine
        %imgmodels --unload [NAME]  let it go, or all of them, and give the memory back
        """
        if _wants_help(self.imgmodels, line):
            return
        from nbimg import models, session
        from nbimg.notebook import loaded

        session.default().keys.gather()
        done = loaded.answer(line, session.default())
        if done is None:
            done = models.render(line.strip(), session.default()) + loaded.render_loaded(
                line.strip()
            )
        print(done)

    @no_var_expand
    @line_magic
    def imgjobs(self, line: str) -> Any:
        """List what runs in this kernel, and what has ended.

        %imgjobs              id, state, progress, time of its begin, first prompt; the newest first
        """
        if _wants_help(self.imgjobs, line):
            return None
        from nbimg import session
        from nbimg.notebook import jobs

        return jobs.render_jobs(session.default())

    @no_var_expand
    @line_magic
    def imgcancel(self, line: str) -> None:
        """Stop a job, here and at the provider; what has finished is kept.

        %imgcancel            the newest that runs
        %imgcancel ID         that one; the beginning or the end of an id is enough, see %imgjobs
        %imgcancel all        all of them
        %imgcancel ID --forget    give up what a job that has ended left behind: nothing of it will be fetched
        """
        if _wants_help(self.imgcancel, line):
            return
        from nbimg import session
        from nbimg.notebook import jobs

        print(jobs.cancel(line, session.default()))

    @no_var_expand
    @line_magic
    def imgresume(self, line: str) -> Any:
        """Take up what a kernel that is gone has left behind; its value is the result.

        %imgresume                  fetch all that is paid for and was not fetched; nothing is sent
        %imgresume ID               only that batch
        %imgresume --remaining      send as well what was never sent; not of a batch that was stopped
        %imgresume ID --remaining   of that batch, stopped or not
        %imgresume -v NAME          keep the result in a variable; _img holds the last
        """
        if _wants_help(self.imgresume, line):
            return None
        from nbimg import session
        from nbimg.notebook import jobs

        return jobs.resume(line, self.shell, session.default())

    @no_var_expand
    @line_magic
    def imgsetup(self, line: str) -> None:
        """Set the key of a provider: it is asked for where it is not shown, tried, and kept.

        %imgsetup                     which providers have a key, and where it comes from
        %imgsetup PROVIDER            ask for its key, try it at no cost, ask where it is to be kept
        %imgsetup PROVIDER --session  keep it until the kernel ends
        %imgsetup PROVIDER --keyring  keep it in the keyring of this machine
        %imgsetup PROVIDER --env      keep it in the .env beside the notebook, which git then ignores
        %imgsetup PROVIDER --forget   take it away from all three
        """
        if _wants_help(self.imgsetup, line):
            return
        from nbimg import session
        from nbimg.notebook import setup

        setup.run(line, session.default())

    @no_var_expand
    @line_magic
    def imgpanel(self, line: str) -> Any:
        """Open a panel: a form that makes images, with what they cost before you press Generate.

        %imgpanel             an empty one
        %imgpanel PROMPT      with a prompt in it
        panel = %imgpanel     panel.form is what it holds, panel.results what it has made last
        """
        if _wants_help(self.imgpanel, line):
            return None
        from nbimg.notebook import panel

        return panel.open_panel(self.shell.user_ns, line)

    @no_var_expand
    @line_magic
    def imggallery(self, line: str) -> Any:
        """Look through everything that was made in this folder.

        %imggallery           all of it, the newest first
        %imggallery QUERY     words of the prompt, -not these, "two together"; and model:flux, date:7d,
                              date:2026-11, size:1024x768, size:wide, size:>1000, status:failed, seed:42,
                              is:starred, is:edit, is:video, is:trashed, sort:oldest
        """
        if _wants_help(self.imggallery, line):
            return None
        from nbimg.notebook import gallery

        return gallery.open_gallery(line)

    def attend(self, magic: str, line: str, cell: str) -> Any:
        """Return a cell as something to await; what `awaited` makes of `%%imggen`."""
        from nbimg import session
        from nbimg.notebook import cells

        return cells.attend(magic, line, cell, self.shell, session.default())

    def _run(self, magic: str, line: str, cell: str | None) -> Any:
        from nbimg import session
        from nbimg.notebook import cells

        return cells.run(magic, line, cell, self.shell, session.default())


def _wants_help(magic: Any, line: str) -> bool:
    """Print the help of a magic, where that is what its line asks for."""
    asked = line.strip() in ("-h", "--help")
    if asked:
        print(inspect.getdoc(magic))
    return asked


NbImg.imggen.__doc__ = render_help("imggen")
NbImg.imgedit.__doc__ = render_help("imgedit")
