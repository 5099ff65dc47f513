"""Settings: what they are, where each value comes from, and which source wins.

Stage: below the session. Comes in: `%config`, the environment, `nbimg.toml` or `[tool.nbimg]`, the
defaults. Goes out: a value, and the name of its source. The only reader of `NBIMG_*`. Must not:
know a credential (that is `keys`), or cache what a user may still change.

A table or a list is JSON in the environment.

The order, first wins: argument of the call > option of the cell > `%config NbImg.x` > environment
`NBIMG_X` > `nbimg.toml` beside the notebook > `[tool.nbimg]` of the nearest `pyproject.toml` >
default. The first two are the caller's business; this module serves the rest.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbimg.errors import SettingError, closest

__all__ = ["SETTINGS", "Rate", "Setting", "Settings", "kernel"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: As in `%config NbImg.<name>`; `NBIMG_<NAME>` in the environment.
        type: What its value is.
        default: None means: nbimg decides.
        help: One line for `%config NbImg` and the docs.
        allowed: The only values it takes; empty: any.
        lowest: Of a number, the smallest; None: any.
        above: Of a number, what it has to be larger than; None: nothing.
    """

    name: str
    type: type
    default: Any
    help: str
    allowed: tuple[str, ...] = ()
    lowest: float | None = None
    above: float | None = None

    @property
    def kind(self) -> str:
        """What its value is, in words."""
        kind = _KINDS[self.type]
        if self.above is not None:
            return f"{kind} above {self.above:g}"
        return kind if self.lowest is None else f"{kind} from {self.lowest:g}"


_KINDS: Mapping[type, str] = MappingProxyType(
    {
        str: "a text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        list: "a list of tables",
        dict: "a table of tables",
    }
)


SETTINGS: tuple[Setting, ...] = (
    Setting("model", str, None, "Model for %%imggen; empty: the best one that can be used now."),
    Setting("edit_model", str, None, "Model for %%imgedit; empty: the best one that can be used."),
    Setting("output_dir", str, "nbimg-images", "Folder for images, seen from the notebook's."),
    Setting("concurrency", int, None, "Tasks at once per provider account.", lowest=1),
    Setting("rate", str, None, "Tasks that may be sent in a window, per account: 600/60s."),
    Setting("retries", int, 3, "At most this many attempts a stage.", lowest=1),
    Setting(
        "retry_min_s", float, 2.0, "Shortest wait before another attempt, in seconds.", lowest=0
    ),
    Setting(
        "retry_max_s", float, 10.0, "Longest wait before another attempt, in seconds.", lowest=0
    ),
    Setting("timeout", float, None, "Bound on a whole task, in seconds.", above=0),
    Setting(
        "cache",
        str,
        "auto",
        "What is shown from the store: auto, always or never.",
        ("auto", "always", "never"),
    ),
    Setting("offline", bool, False, "Nothing leaves this machine; what is missing is named."),
    Setting("budget", float, None, "Most that this kernel may spend, in US dollars.", lowest=0),
    Setting("fallbacks", list, [], "Rules: condition, model, use, description, parameters."),
    Setting("columns", int, None, "Columns of the grid; empty: as many as fit.", lowest=1),
    Setting("display", str, "live", "What a cell shows.", ("grid", "live", "none")),
    Setting("device", str, None, "Where local models run: cpu, cuda, mps; empty: the best."),
    Setting(
        "local_model", str, None, "Model for a graphics card: folder or hub id; empty: the newest."
    ),
    Setting("download", bool, False, "Whether local models may be fetched from the hub unasked."),
    Setting(
        "dtype",
        str,
        None,
        "Number format of local models: float32, bfloat16, float16.",
        ("float32", "bfloat16", "float16"),
    ),
    Setting("attention", str, None, "Attention backend of local models: native, flash, sage …"),
    Setting("compile", bool, False, "Compile the repeated blocks of local models."),
    Setting(
        "channels_last",
        str,
        "auto",
        "Memory order of local UNets: auto (on a CUDA card), on or off.",
        ("auto", "on", "off"),
    ),
    Setting("preview", bool, True, "Show what local pictures look like so far."),
    Setting("providers", dict, {}, "Per provider: base_url, concurrency, rate, api, region …"),
)

#: How long it may take until a change of a file is seen, in seconds.
FRESH_S = 0.1

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_PROVIDER_KEYS = (
    "base_url",
    "concurrency",
    "rate",
    "read_rate",
    "api",
    "region",
    "action",
    "version",
    "resource_config_id",
    "file_encoding_strategy",
    "inputs",
)

#: Provider → setting → the variable of its own that it is known by, in the environment or in `.env`.
OWN_VARIABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "hunyuan": {"concurrency": "HUNYUAN_MAX_CONCURRENT", "region": "HUNYUAN_REGION"},
        "openai": {"base_url": "OPENAI_BASE_URL"},
        "speedpix": {"base_url": "SPEEDPIX_ENDPOINT"},
    }
)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in any `seconds` seconds; written `600/60s`."""

    count: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read `COUNT/SECONDSs`.

        >>> Rate.parse("600/60s")
        Rate(count=600, seconds=60.0)

        Raises:
            SettingError: When the text is not of that form.
        """
        try:
            count, per = text.removesuffix("s").split("/")
            rate = cls(int(count), float(per))
        except ValueError:
            rate = cls(0, 0.0)
        if rate.count < 1 or not 0 < rate.seconds < math.inf:
            raise SettingError(
                f"rate {text!r} is not COUNT/SECONDS.", hint="Write it like 600/60s."
            )
        return rate


class Settings:
    """The settings of a kernel.

    Args:
        environ: Read at every look-up, so that `os.environ[...] = ` in a cell takes effect.
        folder: Where `nbimg.toml` is looked for; None: the current folder.
    """

    def __init__(
        self, environ: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._folder = folder
        self._config: dict[str, Any] = {}
        self._seen: tuple[Path | None, float, list[tuple[str, Mapping[str, Any]]]] = (None, 0.0, [])

    def set(self, name: str, value: Any) -> None:
        """Set a value as `%config` does; None takes it back.

        Raises:
            SettingError: When the name is unknown or the value does not fit.
        """
        setting = self._known(name, "%config")
        if value is None:
            self._config.pop(name, None)
        else:
            self._config[name] = _convert(setting, value, "%config")

    def get(self, name: str, override: Any = None) -> Any:
        """Return the value in force; `override` (an argument or option) wins when it is not None."""
        return override if override is not None else self.find(name)[0]

    def find(self, name: str) -> tuple[Any, str]:
        """Return the value in force and the name of its source.

        Raises:
            SettingError: When the name is unknown, or the value found does not fit.
        """
        setting = self._known(name, "code")
        for source, values in self._sources():
            if name in values:
                return _convert(setting, values[name], source), source
        return setting.default, "default"

    def provider(self, provider: str, key: str) -> Any:
        """Return what is set for one provider: `base_url`, `concurrency`, `rate` …; None: nothing.

        `%config NbImg.providers`, then `NBIMG_<PROVIDER>_<KEY>`, then the provider's own variable, then
        `NBIMG_PROVIDERS`, then `[providers.<provider>]` of the files.
        """
        assert key in _PROVIDER_KEYS
        variable = f"NBIMG_{provider}_{key}".upper().replace("-", "_")
        own = OWN_VARIABLES.get(provider, {}).get(key, variable)
        value = self._environ.get(variable) or self._environ.get(own) or None
        places = [self._config, {"providers": {provider: {key: value}}}]
        if text := self._environ.get("NBIMG_PROVIDERS"):
            places.append({"providers": _convert(_BY_NAME["providers"], text, "environment")})
        for values in (*places, *(values for _, values in self._files())):
            found = values.get("providers", {}).get(provider, {}).get(key)
            if found is not None:
                return found
        return None

    def _sources(self) -> list[tuple[str, Mapping[str, Any]]]:
        environment = {
            setting.name: self._environ[f"NBIMG_{setting.name.upper()}"]
            for setting in SETTINGS
            if self._environ.get(f"NBIMG_{setting.name.upper()}")
        }
        return [("%config", self._config), ("environment", environment), *self._files()]

    def _files(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What the files say; a batch asks a thousand times a second, so an answer holds a moment."""
        folder = self._folder or Path.cwd()
        known, until, found = self._seen
        if known != folder or time.monotonic() > until:
            found = self._look(folder)
            self._seen = folder, time.monotonic() + FRESH_S, found
        return found

    def _look(self, folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
        found: list[tuple[str, Mapping[str, Any]]] = []
        dotenv = folder / ".env"
        if dotenv.is_file() and (named := _own_variables(_dotenv(dotenv))):
            found.append((str(dotenv), {"providers": named}))
        own = folder / "nbimg.toml"
        if own.is_file():
            found.append((str(own), self._checked(_read(own), str(own))))
        for parent in (folder, *folder.parents):
            project = parent / "pyproject.toml"
            if project.is_file():
                values = _read(project).get("tool", {}).get("nbimg", {})
                found.append((str(project), self._checked(values, str(project))))
                break
        return found

    def _checked(self, values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
        for name, value in values.items():
            setting = self._known(name, source)
            if setting.type in (dict, list):
                _convert(setting, value, source)
        return values

    @staticmethod
    def _known(name: str, source: str) -> Setting:
        if name not in _BY_NAME:
            near = closest(name, _BY_NAME)
            hint = f"Did you mean {' or '.join(near)}?" if near else "%config NbImg lists all."
            raise SettingError(f"no setting {name!r} (in {source}).", hint=hint)
        return _BY_NAME[name]


@functools.cache
def kernel() -> Settings:
    """Return the settings of this kernel, which `%config` changes and the default session reads."""
    return Settings()


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says now; it is parsed again only when it has changed."""
    stat = path.stat()
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, _mtime_ns: int, _size_bytes: int) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}.") from error


def _dotenv(path: Path) -> Mapping[str, str | None]:
    from dotenv import dotenv_values

    return dotenv_values(path)


def _own_variables(values: Mapping[str, str | None]) -> dict[str, dict[str, str]]:
    """Return provider → setting → value of the providers' own variables that are there."""
    named = {
        provider: {key: value for key, name in names.items() if (value := values.get(name))}
        for provider, names in OWN_VARIABLES.items()
    }
    return {provider: keys for provider, keys in named.items() if keys}


def _provider(keys: dict[str, Any], source: str) -> dict[str, Any]:
    for key in keys:
        if key not in _PROVIDER_KEYS:
            raise SettingError(
                f"no provider setting {key!r} (in {source}).",
                hint=f"There are {', '.join(_PROVIDER_KEYS)}.",
            )
    return keys


def _convert(setting: Setting, value: Any, source: str) -> Any:
    """Return a value of the kind that the setting has.

    Raises:
        SettingError: When it is of another kind, or outside of what the setting takes.
    """
    try:
        converted = _CONVERTERS[setting.type](value, source)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise SettingError(
            f"{setting.name} = {value!r} (from {source}) is not {setting.kind}."
        ) from error
    low = setting.lowest is not None and converted < setting.lowest
    if low or (setting.above is not None and converted <= setting.above):
        raise SettingError(f"{setting.name} = {value!r} (from {source}) is not {setting.kind}.")
    if setting.allowed and converted not in setting.allowed:
        raise SettingError(
            f"{setting.name} = {value!r} (from {source}) is not one of {', '.join(setting.allowed)}."
        )
    return converted


def _truth(value: Any, _source: str) -> bool:
    return {"1": True, "true": True, "0": False, "false": False}[str(value).lower()]


def _whole(value: Any, _source: str) -> int:
    return int(str(value))  # neither 1.5 nor True


def _number(value: Any, _source: str) -> float:
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError
    return number


def _tables(value: Any, _source: str) -> list[dict[str, Any]]:
    return [dict(item) for item in _from_json(value, list)]


def _table(value: Any, source: str) -> dict[str, dict[str, Any]]:
    tables = _from_json(value, dict).items()
    return {str(name): _provider(dict(keys), source) for name, keys in tables}


def _from_json(value: Any, kind: type) -> Any:
    """Return what a text holds, which is how a table stands in the environment."""
    held = json.loads(value) if isinstance(value, str) else value
    if isinstance(value, str) and not isinstance(held, kind):
        raise TypeError
    return held


_CONVERTERS: Mapping[type, Callable[[Any, str], Any]] = MappingProxyType(
    {
        str: lambda value, _: str(value),
        int: _whole,
        float: _number,
        bool: _truth,
        list: _tables,
        dict: _table,
    }
)
