"""Which model is used when none is named.

Stage: below the session. Comes in: the task, the settings, the credentials. Goes out: a model, and the
line that says why and how to get a better one. Must not: ask a network, or download anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbimg.backends.registry import Registry
from nbimg.config import Settings
from nbimg.credentials.keys import PROVIDER_KEYS, Keys
from nbimg.local import shelf
from nbimg.local.device import accelerator
from nbimg.local.families import FAMILIES, Task, tasks_of
from nbimg.planning import catalog
from nbimg.types import ModelRef

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that nbimg chose.

    Attributes:
        ref: The model.
        note: One line for under the grid; None when the user named it.
    """

    ref: ModelRef
    note: str | None = None


def choose(
    asked: str | None, task: str, settings: Settings, keys: Keys, registry: Registry
) -> Choice:
    """Return the model to use.

    Args:
        asked: What the request names, or None.
        task: `generate` or `edit`.
        settings: Where `model` and `edit_model` are.
        keys: Which providers have a credential.
        registry: Which backends there are.

    Raises:
        UnknownNameError: When a named model does not exist.
    """
    configured = settings.get("edit_model" if task == "edit" else "model")
    if asked or configured:
        return Choice(catalog.resolve(asked or configured, registry.names()))
    for row in catalog.order():
        if keys.find(row.provider) is not None:
            ref = catalog.resolve(row.edit if task == "edit" else row.generate, registry.names())
            price = catalog.entries()[str(ref)].price_usd
            cost = "price unknown" if price is None else f"${price:.3g} an image"
            return Choice(ref, f"Model: {ref} ({row.provider}, {cost}). Choose another with -m.")
    here = _on_this_machine("edit" if task == "edit" else "generate", settings, registry)
    if here is not None:
        return here
    better = ", ".join(PROVIDER_KEYS[row.provider][0][0] for row in catalog.order())
    return Choice(
        catalog.resolve("demo", registry.names()),
        f"Model: demo, which ships with nbimg and runs here at no cost. For a better one set {better}, "
        "or name a model with -m.",
    )


def _on_this_machine(task: Task, settings: Settings, registry: Registry) -> Choice | None:
    """A graphics card, and a model that is on disk: `NbImg.local_model`, else the one fetched last.

    Of the hub's cache only classes count whose ways are known, and that do the task; nothing is asked.
    """
    device = settings.get("device") or accelerator()
    if device in (None, "cpu"):
        return None
    named = settings.get("local_model")
    found = (one.model for one in shelf.scan() if _does(one.pipeline, task))
    model = named or next(found, None)
    if model is None:
        return None
    ref = catalog.resolve(f"local:{model}", registry.names())
    return Choice(ref, f"Model: {ref}, here on {device} at no cost. Choose another with -m.")


def _does(pipeline: str, task: Task) -> bool:
    return pipeline in FAMILIES and task in tasks_of(pipeline, ())
