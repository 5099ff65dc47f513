"""Which model stands in for which, and when: rules, as data.

Stage: below planning. Comes in: tables of `NbImg.fallbacks` (or `[[fallbacks]]` in `nbimg.toml`) and of
the catalogue. Goes out: the rule for a model and a condition. Must not: ask a network, or know what a
model takes; that is `planner`.

    [[fallbacks]]
    condition = "api_error"                       # or reference_image, parameter, refused
    model = "flux-dev"                            # an alias, provider:model, or a pattern: replicate:*, *
    use = ["qwen-image", "imagen-4-ultra"]        # in this order; [] = none
    description = "Other makers of whole pictures."
    parameters = { output_quality = "quality" }   # its parameter -> that of the model in its place
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from nbimg.errors import (
    BackendError,
    ContentRefusedError,
    NbimgError,
    OutcomeUnknownError,
    SettingError,
    UnknownNameError,
)
from nbimg.planning import catalog
from nbimg.types import ModelRef

__all__ = ["CONDITIONS", "Rule", "Rules", "condition_of", "read"]

CONDITIONS: Mapping[str, str] = {
    "reference_image": "the request has more input images than the model takes",
    "parameter": "the request needs something that the model does not take, as a mask",
    "api_error": "the model fails for good",
    "refused": "the model refuses the prompt or a picture",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Which models stand in for a model.

    Attributes:
        condition: When; one of `CONDITIONS`.
        model: For whom: an alias, a full name, or a pattern with `*`.
        use: The models, in the order in which they are tried; empty: none.
        description: For people.
        parameters: Its parameter → that of the model in its place, where our options do not tell.
    """

    condition: str
    model: str
    use: tuple[str, ...]
    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"fallback rule {self.condition} of {self.model}"

    def names(self, ref: ModelRef) -> bool:
        """Whether it is the model's own rule, not one of many."""
        return self.model in (ref.alias, ref.full)

    def holds(self, ref: ModelRef) -> bool:
        """Whether it is for that model."""
        return self.names(ref) or fnmatchcase(ref.full, self.model)


class Rules:
    """The rules in force.

    Args:
        layers: Of each source, the first wins; within one a model's own rule goes before a pattern.
    """

    def __init__(self, *layers: Sequence[Rule]) -> None:
        self._layers = layers

    def of(self, ref: ModelRef, condition: str) -> Rule | None:
        """Return the rule of a model for a condition, or None."""
        for layer in self._layers:
            found = [rule for rule in layer if rule.condition == condition and rule.holds(ref)]
            found.sort(key=lambda rule: not rule.names(ref))
            if found:
                return found[0]
        return None


def read(
    tables: Iterable[Mapping[str, Any]], source: str, providers: Collection[str]
) -> tuple[Rule, ...]:
    """Read rules, and see to it that every model in them is one.

    Args:
        tables: One a rule.
        source: Where they are from, for messages.
        providers: The names of the backends that exist.

    Raises:
        SettingError: When a table is no rule; it says which and why.
    """
    return tuple(
        _read(table, _named(number, table, source), providers)
        for number, table in enumerate(tables, 1)
    )


def _read(table: Mapping[str, Any], what: str, providers: Collection[str]) -> Rule:
    values = {"model": "*", "use": (), "description": "", "parameters": {}, **table}
    try:
        for key in values:
            _known("key", key, ("condition", "model", "use", "description", "parameters"))
        _known("condition", values.setdefault("condition", ""), CONDITIONS)
        use = [values["use"]] if isinstance(values["use"], str) else values["use"]
        for name in [*use, *([] if "*" in values["model"] else [values["model"]])]:
            catalog.resolve(name, providers)
        names = {str(mine): str(its) for mine, its in values["parameters"].items()}
        return Rule(
            values["condition"], values["model"], tuple(use), str(values["description"]), names
        )
    except UnknownNameError as error:
        raise SettingError(f"{what}: {error.message}", hint=error.hint) from error
    except (TypeError, AttributeError) as error:
        raise SettingError(
            f"{what} is no rule: {dict(table)!r}.",
            hint='Write it like {"condition": "api_error", "model": "flux-dev", "use": ["qwen-image"]}.',
        ) from error


def _named(number: int, table: Mapping[str, Any], source: str) -> str:
    """Say which rule is meant: `fallback rule 2 (api_error of flux-dev, in %config)`."""
    about = f"{table.get('condition', 'no condition')} of {table.get('model', '*')}"
    return f"fallback rule {number} ({about}, in {source})"


def _known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known=known, hint=f"There are {', '.join(known)}.")


def condition_of(error: NbimgError) -> str | None:
    """Return the condition that an error is, or None where no other model is to be asked.

    A request of which nobody knows whether it was accepted may be paid for: asking another model would
    pay twice. What the user typed or the disk refused is no fault of the model.
    """
    if isinstance(error, ContentRefusedError):
        return "refused"
    if isinstance(error, BackendError) and not isinstance(error, OutcomeUnknownError):
        return "api_error"
    return None
