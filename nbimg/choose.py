"""Which model is used when none is named.

Stage: below the session. Comes in: the task, the settings, the credentials. Goes out: a model, and the
line that says why and how to get a better one. Must not: ask a network, or download anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbimg import catalog
from nbimg.backends.registry import Registry
from nbimg.config import Settings
from nbimg.keys import PROVIDER_KEYS, Keys
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
    better = ", ".join(PROVIDER_KEYS[row.provider][0][0] for row in catalog.order())
    return Choice(
        catalog.resolve("demo", registry.names()),
        f"Model: demo, which ships with nbimg and runs here at no cost. For a better one set {better}, "
        "or name a model with -m.",
    )
