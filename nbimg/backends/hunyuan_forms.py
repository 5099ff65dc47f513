"""The forms in which Tencent takes an order for Hunyuan Image, and how each answers.

Stage: below the Hunyuan backend. Comes in: a `Call` and its images as text; a reply as data. Goes out: a
`Message` to send; a `Prediction`. Pure. Must not: send, sign, or know a credential.

    name            credential   answers with   order                     look
    tokenhub        API key      the image      /v1/wand/hunyuan-image/v3-generation
    tokenhub-jobs   API key      a job id       /v1/api/image/submit      /v1/api/image/query
    jobs            API key      a job id       /v1/aiart/submit          /v1/aiart/query
    signed          id and key   a job id       SubmitTextToImageJob      QueryTextToImageJob

Sources: https://cloud.tencent.com/document/product/1823/135745 and 1823/130080 (TokenHub),
https://cloud.tencent.com/document/api/1668/88066 and the official client
`tencentcloud-sdk-python-aiart` 3.1.82 (signed, and what the gateway's `extra_body` holds), read
2026-11-22.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from nbimg.backends import hunyuan_replies as replies
from nbimg.backends.base import Call, Prediction, State
from nbimg.backends.hunyuan_codes import Kind, Stage, error, kind_of
from nbimg.errors import BackendError, UnknownNameError
from nbimg.media.attachments import refuse
from nbimg.types import Capabilities, Field, Size

__all__ = ["FORMS", "MODEL", "SIZES", "Form", "Message"]

#: The name of the model here; in each form it has another one there.
MODEL = "image-3.0"

#: What it can draw, in pixels: 33 steps from 4:1 to 1:4 of at most 1024 x 1024 pixels, and four more.
SIZES: tuple[Size, ...] = (
    *(Size(2048 - 64 * k, 512) for k in range(9)),
    *(Size(1472 - 64 * k, 576 + 64 * k) for k in range(15)),
    *(Size(512, 1536 + 64 * k) for k in range(9)),
    *(Size(*pair) for pair in ((768, 1024), (720, 1280), (1024, 768), (1280, 720))),
)
_MAX_SEED = 2**32 - 1


class Message(NamedTuple):
    """A request: where it goes (a path, or the name of an action), and its body."""

    target: str
    body: Mapping[str, Any]


class Form(ABC):
    """One of the forms.

    Attributes:
        name: As in the setting `api`.
        base_url: Where it is, unless the setting `base_url` says otherwise.
        variables: The credential that it takes.
        bearer: What stands before an API key.
        data_uri: Whether an image is sent as a `data:` address; else as base64 alone.
        mimes: The media types of input images that it takes.
        image_bytes: Largest input image as base64.
        body_bytes: Largest sum of them.
        create_s: How long a create may take, in seconds.
    """

    name: ClassVar[str]
    base_url: ClassVar[str]
    variables: ClassVar[tuple[str, ...]] = ("HUNYUAN_API_KEY",)
    bearer: ClassVar[str] = "Bearer "
    data_uri: ClassVar[bool] = True
    mimes: ClassVar[frozenset[str]] = frozenset(
        f"image/{kind}" for kind in ("jpeg", "png", "bmp", "tiff", "webp")
    )
    image_bytes: ClassVar[int] = 6_000_000
    body_bytes: ClassVar[int] = 9_500_000
    create_s: ClassVar[float] = 60.0

    @abstractmethod
    def create(self, call: Call, images: Sequence[str]) -> Message:
        """Return the order."""

    def look(self, job_id: str) -> Message | None:  # noqa: ARG002  # for those who have jobs
        """Return the question how a job stands; None where there are no jobs."""
        return None

    @abstractmethod
    def created(self, data: Mapping[str, Any], status: int) -> Prediction:
        """Read the answer to an order.

        Raises:
            BackendError: What the answer says.
            ReplyError: When it says nothing.
        """

    def looked(self, data: Mapping[str, Any], status: int, job_id: str) -> Prediction:
        """Read how a job stands; see `created`."""
        raise NotImplementedError

    def capabilities(self, model: str) -> Capabilities:  # noqa: ARG002  # for those who know them all
        """Return what a model takes in this form.

        Raises:
            UnknownNameError: When the form provably has no such model.
        """
        # size and resolution are one thing, said in two ways: the last one is what `params` may hold
        return Capabilities(
            options={
                "size": Field("size", allowed=tuple(map(str, SIZES))),
                "ar": Field("resolution", allowed=tuple(f"{s.width}:{s.height}" for s in SIZES)),
                "seed": Field("seed", "integer", minimum=1, maximum=_MAX_SEED),
                "image": Field("images", "files", minimum=0, maximum=3),
            },
            extra={field.name: field for field in (_REVISE, *self._marks())},
            default_size=Size(1024, 1024),
            composes=True,
            steady={_REVISE.name: False},
        )

    def _marks(self) -> tuple[Field, ...]:
        return (
            Field("watermark", "boolean", default=True, help="Whether it says that AI made it."),
            Field("logo_param", "object", help="logo_url or logo_image, and logo_rect: x, y, …"),
        )


_REVISE = Field(
    "revise",
    "boolean",
    default=False,
    help="Let Tencent rewrite the prompt: some 20 s longer, and no seed takes effect.",
)


def _values(call: Call, images: Sequence[str]) -> dict[str, Any]:
    """The order in the words of the job gateway, which the other forms translate.

    A seed takes effect only while the prompt is not rewritten, which is on unless it is turned off.
    """
    given = dict(refuse(call.arguments, str(call.ref)))
    shape = given.pop("size", None)
    shape = given.pop("resolution", None) or shape
    seed, mark = given.pop("seed", None), given.pop("watermark", None)
    revise = bool(given.pop("revise", seed is None))
    values = {
        "prompt": call.prompt,
        "images": list(images) or None,
        "resolution": None if shape is None else str(shape).replace("x", ":"),
        # 0 stands for a random one there; here it is a seed like any other
        "seed": None if seed is None or revise else int(seed) or _MAX_SEED,
        "revise": int(revise),
        "logo_add": None if mark is None else int(bool(mark)),
        **given,
    }
    return {name: value for name, value in values.items() if value is not None}


class TokenHub(Form):
    """The current one: it answers when the image is there."""

    name = "tokenhub"
    base_url = "https://tokenhub.tencentmaas.com"
    mimes = frozenset({"image/jpeg", "image/png"})
    image_bytes = 10_000_000
    body_bytes = 30_000_000
    create_s = 300.0

    def create(self, call: Call, images: Sequence[str]) -> Message:
        mark = call.arguments.get("watermark")
        values = _values(call, images)
        values.pop("logo_add", None)
        shape = values.pop("resolution", None)
        body = {"model": _named(call, "hy-image-v3"), **values, "revise": bool(values["revise"])}
        if shape is not None:
            body["size"] = shape.replace(":", "x")
        if mark:
            body["footnote"] = mark
        return Message("/v1/wand/hunyuan-image/v3-generation", body)

    def created(self, data: Mapping[str, Any], status: int) -> Prediction:
        replies.raise_error(data, status, Stage.CREATE)
        rows = data.get("data")
        if not isinstance(rows, list):
            raise replies.unreadable("no image")
        outputs = replies.outputs_of(rows)
        if not outputs:
            failure = error(Kind.OTHER, "no image", "", Stage.JOB)
            return Prediction(None, State.FAILED, error=failure)
        return Prediction(None, State.DONE, outputs)

    def _marks(self) -> tuple[Field, ...]:
        return (Field("watermark", help="A text of at most 16 characters in the picture."),)


class TokenHubJobs(Form):
    """TokenHub's jobs: an order has an id, so that nothing that was paid can be lost."""

    name = "tokenhub-jobs"
    base_url = TokenHub.base_url
    model: ClassVar[str] = "hy-image-v3.0"

    def create(self, call: Call, images: Sequence[str]) -> Message:
        values = _values(call, images)
        return Message("/v1/api/image/submit", {"model": _named(call, self.model), **values})

    def look(self, job_id: str) -> Message | None:
        return Message("/v1/api/image/query", {"model": self.model, "id": job_id})

    def created(self, data: Mapping[str, Any], status: int) -> Prediction:
        replies.raise_error(data, status, Stage.CREATE)
        return replies.ordered(data.get("job_id") or data.get("id"))

    def looked(self, data: Mapping[str, Any], status: int, job_id: str) -> Prediction:
        state = replies.state_of(data.get("status"))
        if state is State.FAILED:
            return Prediction(job_id, state, error=replies.failure_of(data, status, Stage.JOB))
        try:
            replies.raise_error(data, status, Stage.POLL)
        except BackendError as failure:
            return replies.over(failure, job_id)
        return replies.stands(job_id, data.get("status"), replies.outputs_of(data.get("data")))


class Jobs(TokenHubJobs):
    """The job gateway of the product's own console, whose keys begin with `sk-`."""

    name = "jobs"
    base_url = "https://api.cloudai.tencent.com"
    bearer = ""  # the documentation shows the bare key
    data_uri = False
    model = "HY-Image-V3.0"

    def create(self, call: Call, images: Sequence[str]) -> Message:
        values = _values(call, images)
        outer = {"prompt": values.pop("prompt")}
        for name, known in (("size", "resolution"), ("images", "images")):
            if known in values:
                outer[name] = values.pop(known)
        body = {"model": _named(call, self.model), **outer, "extra_body": values}
        return Message("/v1/aiart/submit", body)

    def look(self, job_id: str) -> Message | None:
        return Message("/v1/aiart/query", {"job_id": job_id})


class Signed(Form):
    """The classic API of Tencent Cloud.

    Args:
        action: Of the order; that of the look has `Query` in place of `Submit`.
    """

    name = "signed"
    base_url = "https://aiart.tencentcloudapi.com"
    variables = ("HUNYUAN_SECRET_ID", "HUNYUAN_SECRET_KEY")
    data_uri = False

    def __init__(self, action: str = "SubmitTextToImageJob") -> None:
        self.action = action

    def capabilities(self, model: str) -> Capabilities:
        if model != MODEL:
            raise UnknownNameError("model", f"hunyuan:{model}", known=[f"hunyuan:{MODEL}"])
        return super().capabilities(model)

    def create(self, call: Call, images: Sequence[str]) -> Message:
        return Message(self.action, _camel(_values(call, images)))

    def look(self, job_id: str) -> Message | None:
        return Message(f"Query{self.action.removeprefix('Submit')}", {"JobId": job_id})

    def created(self, data: Mapping[str, Any], status: int) -> Prediction:
        return replies.ordered(replies.response(data, status, Stage.CREATE).get("JobId"))

    def looked(self, data: Mapping[str, Any], status: int, job_id: str) -> Prediction:
        try:
            answer = replies.response(data, status, Stage.POLL)
        except BackendError as failure:
            return replies.over(failure, job_id)
        state = replies.state_of(answer.get("JobStatusCode"))
        code = answer.get("JobErrorCode")
        if state is State.FAILED:
            text = str(answer.get("JobErrorMsg") or answer.get("JobStatusMsg") or "")
            why = error(kind_of(code), str(code or "no code"), text, Stage.JOB, job_id=job_id)
            return Prediction(job_id, state, error=why)
        outputs, reasons = replies.results(answer)
        if state is State.DONE and not outputs and reasons:
            why = error(kind_of(*reasons), reasons[0], "", Stage.JOB, job_id=job_id)
            return Prediction(job_id, State.FAILED, error=why)
        return replies.stands(job_id, answer.get("JobStatusCode"), outputs)


#: Name → form.
FORMS: Mapping[str, type[Form]] = {
    form.name: form for form in (TokenHub, TokenHubJobs, Jobs, Signed)
}


def _named(call: Call, known: str) -> str:
    """The name of the model there: an unknown one is passed on as it is."""
    return known if call.ref.model == MODEL else call.ref.model


def _camel(value: Any) -> Any:
    """The words of the gateway in those of the signed API: logo_rect becomes LogoRect."""
    if not isinstance(value, Mapping):
        return value
    return {
        "".join(part[:1].upper() + part[1:] for part in name.split("_")): _camel(inner)
        for name, inner in value.items()
    }
