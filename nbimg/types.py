"""The data that flows through nbimg: what is asked, what a model takes, what came back.

Stage: the vocabulary of every other stage. Frozen values only, each of which survives a round trip
through JSON. Must not: do network or database work, or know any provider.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from nbimg import errors
from nbimg.errors import InputError, NbimgError, OptionError, ResultMissingError, UnknownNameError

if TYPE_CHECKING:
    import PIL.Image

__all__ = [
    "Attempt",
    "Capabilities",
    "EncodedImage",
    "ErrorRecord",
    "Field",
    "ImageRecord",
    "InputImage",
    "ModelRef",
    "Request",
    "Result",
    "Seconds",
    "Size",
    "Status",
    "placeless",
]


class Status(StrEnum):
    """How a task ended."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels, in that order."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str | Size | tuple[int, int]) -> Size:
        """Read `WxH` in pixels.

        >>> Size.parse("1024x768")
        Size(width=1024, height=768)

        Raises:
            OptionError: When the text is not two positive whole numbers.
        """
        if isinstance(text, Size):
            return text
        if isinstance(text, tuple):
            text = "x".join(map(str, text))
        match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×*]\s*(\d{1,5})\s*", str(text))
        if match is None or 0 in (int(match[1]), int(match[2])):
            raise OptionError(
                f"size {text!r} is not WxH in pixels.", hint="Write it like 1024x768."
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def ratio(self) -> float:
        """Width divided by height."""
        return self.width / self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def parse_ratio(text: str) -> tuple[int, int]:
    """Read an aspect ratio `W:H`, in lowest terms.

    >>> parse_ratio("8:6")
    (4, 3)

    Raises:
        OptionError: When the text is not two positive whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*:\s*(\d{1,5})\s*", str(text))
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise OptionError(f"aspect ratio {text!r} is not W:H.", hint="Write it like 16:9.")
    width, height = int(match[1]), int(match[2])
    divisor = math.gcd(width, height)
    return width // divisor, height // divisor


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A provider's model.

    Attributes:
        provider: Name of the backend, for example `replicate`.
        model: The provider's own id; empty where the provider has only one.
        alias: The short name that the user knows it by, when there is one.
    """

    provider: str
    model: str
    alias: str | None = None

    @property
    def full(self) -> str:
        """`provider:model`, or the provider alone."""
        return _full(self.provider, self.model)

    def __str__(self) -> str:
        return self.alias or self.full


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image that a request takes in, by its content.

    Attributes:
        sha256: Of the upright bytes at `path`.
        mime: Their media type.
        width: Pixels.
        height: Pixels.
        path: Where the bytes are on this machine.
        source: What the user gave: a path, a URL, a variable; for captions only.
    """

    sha256: str
    mime: str
    width: int
    height: int
    path: str
    source: str | None = None


@functools.lru_cache(maxsize=256)
def _full(provider: str, model: str) -> str:
    """One text for all: every attempt and result of a batch holds it."""
    return f"{provider}:{model}" if model else provider


_INPUT_IMAGE = {spec.name for spec in fields(InputImage)}
_MAX_SEED = 2**32 - 1
_NONE: Mapping[str, Any] = MappingProxyType({})  # one for all: a batch may have 50,000 requests


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked for: one task.

    Args:
        prompt: The text.
        model: An alias, `provider:model`, or None for the default one.
        n: How many images.
        size: Pixels, a `Size` or `WxH`.
        ar: Aspect ratio `W:H`; together with `size`, the size wins.
        seed: Variant k uses `seed + k`; None lets nbimg draw one where the model takes seeds.
        negative: What should not be there.
        steps: Denoising steps.
        guidance: How strongly the prompt is followed, in the model's own unit.
        strength: For edits, 0 (keep) to 1 (make anew).
        image: What to edit or refer to: anything that `nbimg.edit` takes, or several of it.
        mask: Where to edit: white is changed.
        lora: Adapters, each a path, hub id or URL, `NAME:WEIGHT` for a weight.
        scheduler: Name of the sampler.
        params: Passed through to the model under its own names.
        output: File name template, see `nbimg.store.files`.
        task_id: A name of the caller's own for the task.

    Raises:
        OptionError: When a value cannot mean anything.
    """

    prompt: str
    model: str | None = None
    n: int = 1
    size: Size | None = None
    ar: str | None = None
    seed: int | None = None
    negative: str | None = None
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    image: tuple[Any, ...] = ()
    mask: Any = None
    lora: tuple[str, ...] = ()
    scheduler: str | None = None
    params: Mapping[str, Any] = field(default_factory=lambda: _NONE)
    output: str | None = None
    task_id: str | None = None

    def __post_init__(self) -> None:
        _check_kinds(self)
        if self.size is not None:
            _set(self, "size", Size.parse(self.size))
        if self.ar is not None:
            _set(self, "ar", "{}:{}".format(*parse_ratio(self.ar)))
        if not isinstance(self.image, tuple):
            images = self.image if isinstance(self.image, list) else [self.image]
            _set(self, "image", tuple(image for image in images if image is not None))
        if not isinstance(self.lora, tuple):
            _set(self, "lora", (self.lora,) if isinstance(self.lora, str) else tuple(self.lora))
        if self.params is not _NONE:
            _set(self, "params", MappingProxyType(dict(self.params)) if self.params else _NONE)
        _check_whole(self.n, "n", 1, 1000)
        _check_whole(self.seed, "seed", 0, _MAX_SEED)
        _check_whole(self.steps, "steps", 1, 1000)
        _check_number(self.guidance, "guidance", 0, 100)
        _check_number(self.strength, "strength", 0, 1)
        for name in ("guidance", "strength"):  # 3 and 3.0 are one request
            if isinstance(getattr(self, name), int):
                _set(self, name, float(getattr(self, name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_request_from_dict, (self.to_dict(),))

    def __hash__(self) -> int:
        return hash(self.key)

    def but(self, **changes: Any) -> Self:
        """Return the same request with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data; only the fields that differ from their default.

        Raises:
            InputError: When an image is not yet a path, a URL or an `InputImage`.
        """
        plain = {
            spec.name: _plain(getattr(self, spec.name))
            for spec in fields(self)
            if spec.name != "params" and getattr(self, spec.name) != spec.default
        }
        if self.params:
            plain["params"] = _plain(self.params)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a request from JSON data.

        Raises:
            UnknownNameError: When a key is not a field; it names the nearest.
        """
        known = [spec.name for spec in fields(cls)]
        for key in data:
            if key not in known:
                raise UnknownNameError("key", key, known=known)
        values = dict(data)
        values["image"] = tuple(map(_image_from_plain, _as_list(values.get("image"))))
        if "mask" in values:
            values["mask"] = _image_from_plain(values["mask"])
        return cls(**values)

    @property
    def key(self) -> str:
        """SHA-256 over what decides the pixels: neither file names nor task ids are in it."""
        plain = placeless(self.but(output=None, task_id=None).to_dict())
        text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of a model, under the model's own name.

    Attributes:
        name: What the model calls it.
        type: `string`, `integer`, `number`, `boolean`, `file` or `files`.
        default: What the model uses when it is not sent.
        allowed: The only values it takes; empty: any.
        minimum: Smallest number, or fewest files.
        maximum: Largest number, or most files.
        multiple: Numbers must be a multiple of this.
        help: The provider's own description.
        required: Whether the model refuses a request without it.
    """

    name: str
    type: str = "string"
    default: Any = None
    allowed: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    multiple: int | None = None
    help: str = ""
    required: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What a model takes.

    Attributes:
        options: Our option name (`seed`, `ar`, `guidance` …) → the model's field. An option that is
            not here is not taken.
        extra: The model's other fields by their own names, for `params`.
        default_size: Pixels it makes when none are asked for, where known.
        composes: Whether several input images become one picture.
        makes: Whether it works from a prompt alone.
        price_usd: Per image, where known.
        price_at: The day the price was read, `YYYY-MM-DD`.
        vocabulary: For a model with a closed vocabulary, its words in lower case; else empty.
        about_vocabulary: What such a model can draw, in one line.
        open: Whether fields that are not listed are passed on all the same.
        steady: Field → the value with which a seed takes effect; sent with every seed.
    """

    options: Mapping[str, Field] = field(default_factory=dict)
    extra: Mapping[str, Field] = field(default_factory=dict)
    default_size: Size | None = None
    composes: bool = False
    makes: bool = True
    price_usd: float | None = None
    price_at: str | None = None
    vocabulary: frozenset[str] = frozenset()
    about_vocabulary: str = ""
    open: bool = False
    steady: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_images(self) -> int:
        """How many input images it takes: 0, 1 or more."""
        images = self.options.get("image")
        if images is None:
            return 0
        return 1 if images.type == "file" else int(images.maximum or 1000)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file in memory, as a backend hands it over.

    Attributes:
        data: The bytes as they came.
        seed: The seed that made it, where it is known.
        url: Where the provider keeps it.
        encoded_here: Whether nbimg encoded the bytes itself and may add metadata.
        peak_memory_bytes: The most memory of the device that making it took; 0: nobody counted.
        device_s: How long this machine's device took, in seconds: its share of a call that several share.
    """

    data: bytes
    seed: int | None = None
    url: str | None = None
    encoded_here: bool = False
    peak_memory_bytes: int = 0
    device_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image (or video) that was made, and where it is.

    Attributes:
        path: The file that the user sees; None with `--url-only`.
        url: The provider's address, which may expire within the hour.
        kind: `image` or `video`.
        mime: Media type of the file.
        width: Pixels.
        height: Pixels.
        sha256: Of the file's bytes, hexadecimal.
        seed: The seed that made it, where it is known.
    """

    path: Path | None
    url: str | None = None
    kind: str = "image"
    mime: str = "image/png"
    width: int = 0
    height: int = 0
    sha256: str = ""
    seed: int | None = None

    def read(self) -> bytes:
        """Return the bytes of the file.

        Raises:
            ResultMissingError: When there is no file.
        """
        if self.path is None:
            raise ResultMissingError(f"the image was not downloaded: {self.url}")
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ResultMissingError(f"{self.path} cannot be read: {error.strerror}.") from error

    def pil(self) -> PIL.Image.Image:
        """Return the decoded image, with shape (height, width).

        Raises:
            ResultMissingError: When there is no file.
            ImageInputError: When the file is not an image.
        """
        from nbimg.media import pixels

        return pixels.decode(self.read(), name=str(self.path))

    def save(self, path: str | Path) -> Path:
        """Copy the file to `path`, byte for byte; return where it is."""
        target = Path(path)
        if self.path is not None and self.path.exists():
            shutil.copyfile(self.path, target)
        else:
            target.write_bytes(self.read())
        return target

    async def aread(self) -> bytes:
        """`read` without blocking the loop."""
        import asyncio

        return await asyncio.to_thread(self.read)

    async def asave(self, path: str | Path) -> Path:
        """`save` without blocking the loop."""
        import asyncio

        return await asyncio.to_thread(self.save, path)


def _as_text(kind: type, name: str) -> None:
    """Keep a path of `kind` as one text: a `Path` is five objects, and a batch may have 50,000."""
    slot = getattr(kind, name)

    def get(self: Any) -> Path | None:
        text = slot.__get__(self)
        return None if text is None else Path(text)

    def put(self: Any, path: str | Path | None) -> None:
        slot.__set__(self, None if path is None else str(path))

    setattr(kind, name, property(get, put))


_as_text(ImageRecord, "path")


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """Why a task failed, as data.

    Attributes:
        kind: Name of the error class in `nbimg.errors`.
        message: One line.
        hint: What to do about it.
        http_status: Where there was one.
        job_id: The provider's job id, where there was one.
    """

    kind: str
    message: str
    hint: str | None = None
    http_status: int | None = None
    job_id: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> ErrorRecord:
        """Record an exception; one that is not ours keeps its class name."""
        message = error.message if isinstance(error, NbimgError) else str(error)
        return cls(
            type(error).__name__,
            message or type(error).__name__,
            getattr(error, "hint", None),
            getattr(error, "http_status", None),
            getattr(error, "job_id", None),
        )

    def exception(self) -> NbimgError:
        """Return the error as an exception of its own class, for `raise … from`."""
        kind = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, errors.BackendError):
            return kind(
                self.message, hint=self.hint, http_status=self.http_status, job_id=self.job_id
            )
        return errors.NbimgError(f"{self.kind}: {self.message}", hint=self.hint)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one stage.

    Attributes:
        model: The full name of the model that was tried.
        stage: `create`, `run`, `download` or `local`.
        at_utc: Unix time in seconds when it began.
        seconds: How long it took; on this machine its share of a call that several tasks share.
        outcome: `ok`, or the name of the error class.
        http_status: Where there was one.
        job_id: The provider's job id, where there was one.
        peak_memory_bytes: The most memory that it took on this machine's device; 0: nobody counted.
    """

    model: str
    stage: str
    at_utc: float
    seconds: float
    outcome: str
    http_status: int | None = None
    job_id: str | None = None
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time of a task went, in seconds."""

    queued: float = 0.0
    running: float = 0.0
    download: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one task.

    Attributes:
        index: 0-based place of the task in its batch.
        request: What was asked.
        model: Full name of the model that was used.
        model_asked: What the user (or the default) asked for.
        status: How it ended.
        images: What was made, variants in order.
        error: Why it failed, if it did.
        attempts: Every try, oldest first.
        notices: What was translated, dropped or replaced, and why.
        seconds: Queued, running, download.
        cost_usd: What it cost; None where the price is unknown.
        cached: Whether it came from the store at no cost.
        usage: What the providers counted, added up over its calls: `input_tokens`, `output_tokens` …;
            empty where they tell nothing.
    """

    index: int
    request: Request
    model: str
    model_asked: str | None = None
    status: Status = Status.OK
    images: tuple[ImageRecord, ...] = ()
    error: ErrorRecord | None = None
    attempts: tuple[Attempt, ...] = ()
    notices: tuple[str, ...] = ()
    seconds: Seconds = Seconds()
    cost_usd: float | None = None
    cached: bool = False
    usage: Mapping[str, int] = field(default_factory=lambda: _NONE, hash=False)

    def __post_init__(self) -> None:
        if not self.usage:
            _set(self, "usage", _NONE)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Result.from_dict, (self.to_dict(),))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, from which `from_dict` builds an equal result."""
        plain: dict[str, Any] = _plain_fields(self)
        plain["request"] = self.request.to_dict()
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a result from what `to_dict` gave."""
        values = dict(data)
        values["request"] = Request.from_dict(values["request"])
        values["status"] = Status(values["status"])
        values["images"] = tuple(
            ImageRecord(**{**image, "path": Path(image["path"]) if image["path"] else None})
            for image in values["images"]
        )
        values["error"] = ErrorRecord(**values["error"]) if values["error"] else None
        values["attempts"] = tuple(Attempt(**attempt) for attempt in values["attempts"])
        values["notices"] = tuple(values["notices"])
        values["seconds"] = Seconds(**values["seconds"])
        return cls(**values)


def placeless(plain: Any) -> Any:
    """Return JSON data in which no input image says where it is, or what it was called."""
    if isinstance(plain, list):
        return [placeless(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    dropped = ("path", "source") if plain.keys() == _INPUT_IMAGE else ()
    return {name: placeless(part) for name, part in plain.items() if name not in dropped}


def _set(target: Any, name: str, value: Any) -> None:
    object.__setattr__(target, name, value)


def _check_kinds(request: Request) -> None:
    """Refuse what would fail later, and say less."""
    if not isinstance(request.prompt, str):
        raise OptionError(f"a prompt is a text, not {type(request.prompt).__name__}.")
    for name in ("model", "negative", "scheduler", "output"):
        if not isinstance(value := getattr(request, name), str | os.PathLike | None):
            raise OptionError(f"{name} {value!r} is not a text.")
    if not isinstance(request.lora, str | list | tuple):
        raise OptionError(f"lora {request.lora!r} is not a text or a list of texts.")
    if not isinstance(request.params, Mapping):
        raise OptionError(f"params {request.params!r} is not a dict.")
    if request.n is None:
        raise OptionError("n None is not a whole number from 1 to 1000.")


def _check_whole(value: Any, name: str, lowest: int, highest: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise OptionError(f"{name} {value!r} is not a whole number from {lowest} to {highest}.")


def _check_number(value: Any, name: str, lowest: float, highest: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
        raise OptionError(f"{name} {value!r} is not a number.")
    if not lowest <= value <= highest:
        raise OptionError(f"{name} {value!r} is not between {lowest:g} and {highest:g}.")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _request_from_dict(data: dict[str, Any]) -> Request:
    return Request.from_dict(data)


def _image_from_plain(value: Any) -> Any:
    return InputImage(**value) if isinstance(value, dict) else value


def _plain_fields(value: Any) -> dict[str, Any]:
    return {spec.name: _plain(getattr(value, spec.name)) for spec in fields(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, Request):
        return value.to_dict()
    if isinstance(value, Size | Path):
        return str(value)
    if isinstance(value, InputImage | ImageRecord | ErrorRecord | Attempt | Seconds):
        return _plain_fields(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(
        f"a {type(value).__name__} cannot be written as JSON.", hint="Save it to a file first."
    )
