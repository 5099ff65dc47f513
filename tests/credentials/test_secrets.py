"""A key of each provider is planted, everything is made to happen, and then it is looked for everywhere.

Where it may be: in requests to the provider's own API, and nowhere else. The keys are random, so that a
part of one that is twelve characters long is one, too.
"""

import copy
import json
import logging
import pickle
import secrets as random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import nbimg
from nbimg import session, setup, telemetry
from nbimg.calls.call import CallOptions
from nbimg.concurrency import semaphore
from nbimg.credentials.given import read_credentials
from nbimg.session import Session
from nbimg.testing import (
    FAILURES,
    Fault,
    LocalServer,
    OpenAIServer,
    Outcome,
    ReplicateServer,
    Reply,
)
from nbimg.testing.hunyuan import HunyuanServer
from nbimg.testing.hunyuan_jobs import HunyuanOutcome
from nbimg.testing.pictures import render_picture
from nbimg.testing.speedpix import SAID, SpeedPixServer
from nbimg.testing.speedpix_jobs import SpeedPixOutcome

#: A part of a key of so many characters gives it away.
TELLING = 12
PICTURE = render_picture("an input image", "png", 24, 16)

Cause = Fault | Callable[[Any], None]


@dataclass(frozen=True)
class Planted:
    """A provider with keys that are ours.

    Attributes:
        provider: Its name.
        model: What is asked for.
        keys: Variable → the planted key.
        make: Returns its server, which accepts the keys.
        create: Method and path of the request that makes a job.
        failing: Name → what lets a call fail, for good.
        environ: Further variables.
    """

    provider: str
    model: str
    keys: Mapping[str, str]
    make: Callable[..., LocalServer]
    create: tuple[str, str]
    failing: Mapping[str, Cause] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)

    def variables(self, base_url: str) -> dict[str, str]:
        """What a session needs to speak to a server."""
        path = "/v1" if self.provider == "openai" else ""
        base = {f"NBIMG_{self.provider.upper()}_BASE_URL": base_url + path}
        return {**self.environ, **base, **self.keys}


def key() -> str:
    return random.token_hex(20)


def hunyuan(api: str, create: tuple[str, str], *names: str, **failing: Cause) -> Planted:
    keys = {name: key() for name in names}

    def make() -> LocalServer:
        taken = {n.removeprefix("HUNYUAN_").lower(): value for n, value in keys.items()}
        return HunyuanServer(slots=2, **taken)

    environ = {"NBIMG_HUNYUAN_API": api}
    return Planted("hunyuan", "hunyuan-image-3", keys, make, create, failing, environ)


def expecting(outcome: Any) -> Callable[[Any], None]:
    return lambda server: server.expect(outcome)


def planted() -> dict[str, Planted]:
    """Every provider, with new keys."""
    token, openai, app, secret = key(), key(), key(), key()
    pair = ("HUNYUAN_SECRET_ID", "HUNYUAN_SECRET_KEY")
    signed, hub = ("POST", "SubmitTextToImageJob"), ("POST", "/v1/wand/*")
    jobs, prompt = ("POST", "/v1/aiart/submit"), ("POST", "/scc/comfy_prompt")

    def replicate() -> LocalServer:
        return ReplicateServer(token=token)

    return {
        "replicate": Planted(
            "replicate", "flux-dev", {"REPLICATE_API_TOKEN": token}, replicate,
            ("POST", "*/predictions"),
            {
                "failed": expecting(Outcome(error=FAILURES["E1001"], times=None)),
                "refused": expecting(Outcome(error=FAILURES["E005"], times=None)),
            },
        ),
        **{
            f"openai {dialect}": Planted(
                "openai", f"openai:{model}", {"OPENAI_API_KEY": openai},
                lambda dialect=dialect: OpenAIServer(dialect, key=openai),
                ("POST", "/v1/images/*"),
                {"no money": Fault("error", "POST", "/v1/images/*", status=429, variant="quota", times=None)},
            )
            for dialect, model in [("openai", "gpt-image-2"), ("vllm", OpenAIServer("vllm").models[0])]
        },
        "hunyuan signed": hunyuan(
            "signed", signed, *pair,
            failed=expecting(HunyuanOutcome(code="FailedOperation.Mystery", times=None)),
            signature=Fault("error", *signed, variant="AuthFailure.SignatureFailure", times=None),
            money=Fault("error", *signed, variant="ResourceUnavailable.InArrears", times=None),
        ),
        "hunyuan tokenhub": hunyuan(
            "tokenhub", hub, "HUNYUAN_API_KEY",
            refused=Fault("error", *hub, variant="451001", times=None),
        ),
        "hunyuan jobs": hunyuan(
            "jobs", jobs, "HUNYUAN_API_KEY",
            failed=expecting(HunyuanOutcome(code="Mystery", times=None)),
        ),
        "speedpix": Planted(
            "speedpix", "speedpix:1001",
            {"SPEEDPIX_APP_KEY": app, "SPEEDPIX_APP_SECRET": secret},
            lambda: SpeedPixServer(app_key=app, app_secret=secret),
            prompt,
            {
                "failed": expecting(SpeedPixOutcome(SAID["failed"], times=None)),
                "refused": Fault("error", *prompt, status=200, variant="refused", times=None),
            },
        ),
    }  # fmt: skip


NAMES = list(planted())
PROVIDERS = ("replicate", "openai openai", "hunyuan signed", "hunyuan tokenhub", "speedpix")
FAULTS: dict[str, dict[str, Any]] = {
    "401": {"kind": "error", "status": 401, "times": None},
    "402": {"kind": "error", "status": 402, "times": None},
    "422": {"kind": "error", "status": 422, "times": None},
    "429": {"kind": "error", "status": 429, "times": None, "retry_after_s": 0},
    "lost": {"kind": "drop", "when": "after"},
    "reset": {"kind": "drop", "when": "before", "reset": True, "times": None},
    "a proxy's page": {"kind": "html", "status": 502, "times": None},
    "a page with 200": {"kind": "html", "status": 200, "times": None},
    "cut": {"kind": "cut", "times": None},
    "null": {"kind": "body", "body": b"null", "times": None},
}


class Log(logging.Handler):
    """All that is logged at any level; pytest's own forgets a test when its fixtures end."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []

    def emit(self, record):
        self.records.append(record)


class Witness:
    """What there is to see of a session: everything that a call gives back is told to it."""

    def __init__(self, folder, capsys, spans, log):
        self._folder, self._capsys, self._spans, self._log = folder, capsys, spans, log
        self._texts, self._keys, self._servers = [], set(), []

    def plant(self, one: Planted, monkeypatch, base_url: str, *, environ: bool = True) -> None:
        for name, value in one.variables(base_url).items():
            if environ or name not in one.keys:
                monkeypatch.setenv(name, value)
        self._keys |= set(one.keys.values())

    def serve(self, server: LocalServer) -> LocalServer:
        self._servers.append(server)
        return server

    def tell(self, value: Any) -> None:
        """Keep everything that a value can be made to show."""
        shows = [repr, str, format, vars_of, pickled, copied, mime]
        self._texts.extend(str(show(value)) for show in shows)
        if isinstance(value, BaseException):
            self._tell_error(value)
        if isinstance(value, nbimg.ResultSet):
            self._texts.append(json.dumps(value.to_dicts(), default=repr))
            self._texts.append(value.to_pandas().to_json(default_handler=repr))
            for result in value:
                self.tell(result)
                if result.error is not None:
                    self.tell(result.error)
                    self.tell(result.error.exception())

    def _tell_error(self, error: BaseException) -> None:
        self._texts.extend(traceback.format_exception(error))
        if isinstance(error, nbimg.NbimgError):
            for error.debug in (False, True):
                self._texts.extend(error._render_traceback_())
        for other in (error.__cause__, error.__context__):
            if other is not None:
                self.tell(other)

    def look(self) -> None:
        """Look for the keys."""
        own = session.default()
        self.tell(nbimg.about())
        self._texts.append(setup.render(own))
        self._texts.extend(semaphore.semaphores())
        self._texts.extend(span.to_json() for span in self._spans())
        self.tell(own.keys)
        for job in own.jobs():
            self.tell(job)
            self._texts.extend(map(repr, job.events))
        own.close()
        session._default = None
        shown = self._capsys.readouterr()
        places = {"what was shown": "\n".join(self._texts), "the output": shown.out + shown.err}
        places["the log"] = "\n".join(
            f"{one.getMessage()} {vars(one)}" for one in self._log.records
        )
        assert "httpcore" in places["the log"] or not self._servers
        for path in self._folder.rglob("*"):
            if path.is_file() and path.name != ".env":
                places[str(path)] = path.read_bytes().decode("latin-1")
        for server in self._servers:
            for call in server.requests:
                sent = [call.path, call.query, call.body.decode("latin-1")]
                if call.host != "api":
                    sent.extend(f"{name}: {value}" for name, value in call.headers.items())
                places[f"{call.method} {call.host} {call.path}"] = "\n".join(sent)
        for place, text in places.items():
            for value in self._keys:
                parts = {value[at : at + TELLING] for at in range(len(value) - TELLING + 1)}
                found = [part for part in parts if part in text]
                assert not found, f"{place}: …{text[max(0, text.index(found[0]) - 200) :][:500]}…"
        assert self._keys, "the test has to plant some"


def vars_of(value: Any) -> str:
    held = getattr(value, "__dict__", {})
    return f"{held!r} {getattr(value, 'args', '')!r}"


def pickled(value: Any) -> str:
    try:
        return pickle.dumps(value).decode("latin-1")
    except Exception as error:
        return str(error)


def copied(value: Any) -> str:
    try:
        return repr(copy.deepcopy(value))
    except Exception as error:
        return str(error)


def mime(value: Any) -> str:
    show = getattr(value, "_repr_mimebundle_", None)
    return repr(show()) if show is not None else ""


@pytest.fixture
def witness(tmp_path, monkeypatch, capsys):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("nbimg"))
    log, root = Log(), logging.getLogger()
    own = Witness(tmp_path, capsys, exporter.get_finished_spans, log)
    root.addHandler(log)
    level = root.level
    root.setLevel(logging.DEBUG)
    yield own
    own.look()
    root.removeHandler(log)
    root.setLevel(level)


def make(one: Planted, witness: Witness, **options: Any) -> nbimg.ResultSet:
    """Make images in each way that there is, and tell what came of it."""
    known = {"model": one.model, "fallback": (), **options}
    made = nbimg.generate(["a red house"], retries=2, **known)
    witness.tell(made)
    try:
        witness.tell(nbimg.generate("a blue house", n=2, retries=1, **known))
    except nbimg.NbimgError as error:
        witness.tell(error)
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [False, True], ids=["environment", "call"])
def test_a_call_that_works_shows_its_key_to_nobody_else(name, given, witness, monkeypatch):
    one = planted()[name]
    with witness.serve(one.make()) as server:
        witness.plant(one, monkeypatch, server.base_url, environ=not given)
        own = {"credentials": {one.provider: dict(one.keys)}} if given else {}
        assert make(one, witness, **own).ok
        with_image = {"model": one.model, "fallback": (), **own}
        witness.tell(nbimg.batch([{"prompt": "x", "output": "x"}, "y"], **with_image))
        try:
            witness.tell(nbimg.edit(PICTURE, "in winter", **with_image))
        except nbimg.NbimgError as error:  # not every model can
            witness.tell(error)
        assert any(
            value in str(call.headers) for call in server.requests for value in one.keys.values()
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_create_that_fails_shows_no_key(name, fault, witness, monkeypatch):
    one = planted()[name]
    with witness.serve(one.make()) as server:
        witness.plant(one, monkeypatch, server.base_url)
        method, path = one.create
        server.inject(Fault(method=method, path=path, **FAULTS[fault]))
        make(one, witness)
        witness.tell(nbimg.resume())


@pytest.mark.parametrize(
    ("name", "failure"), [(name, why) for name, one in planted().items() for why in one.failing]
)
def test_a_job_that_fails_shows_no_key(name, failure, witness, monkeypatch):
    one = planted()[name]
    with witness.serve(one.make()) as server:
        witness.plant(one, monkeypatch, server.base_url)
        cause = one.failing[failure]
        server.inject(cause) if isinstance(cause, Fault) else cause(server)
        assert make(one, witness).failed


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_key_is_not_shown_either(name, witness, monkeypatch):
    right, wrong = planted()[name], planted()[name]
    with witness.serve(right.make()) as server:
        witness.plant(wrong, monkeypatch, server.base_url)
        made = make(wrong, witness)
        assert "KeyRejectedError" in str([result.error.kind for result in made])
        try:
            setup.check(wrong.provider, {}, session.default())
        except nbimg.NbimgError as error:
            witness.tell(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_that_is_not_there_shows_no_key(name, witness, monkeypatch):
    one = planted()[name]
    with one.make() as gone:
        base_url = gone.base_url
    witness.plant(one, monkeypatch, base_url)
    assert make(one, witness).failed


# ------------------------------------------------------------------ a provider that repeats what it was sent


class Parrot(LocalServer):
    """Answers everything with what it was sent, at every place where a provider says something."""

    def __init__(self, status: int, *, page: bool = False) -> None:
        super().__init__()
        self._status, self._page = status, page

    def answer(self, call):
        heard = " ".join(f"{name}={value}" for name, value in call.headers.get_all())
        said = f"{heard} {heard} {heard}"
        error = {"code": said, "message": said, "type": said, "param": said}
        body = {
            "detail": said, "message": said, "title": said, "error": error, "status": said,
            "Response": {"Error": {"Code": f"AuthFailure.{heard}", "Message": said}, "RequestId": "1"},
            "errCode": said, "errMessage": said, "subErrCode": said, "subErrMessage": said,
            "id": "1", "job_id": "1", "taskId": "1", "data": [{"url": said}],
            "output": [f"http://{said}"], "logs": said, "urls": {"get": said},
        }  # fmt: skip
        headers = {"X-Ca-Error-Message": said, "X-Ca-Error-Code": said, "X-Request-Id": said}
        text = f"<html>{said}</html>" if self._page else json.dumps(body)
        kind = "text/html" if self._page else "application/json"
        return Reply(self._status, text.encode(), kind, headers)


#: Status, and whether the answer is a page and not data.
ANSWERS = [
    *((status, False) for status in (200, 400, 401, 402, 403, 404, 429, 451, 500)),
    *((status, True) for status in (200, 401, 500)),
]


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(("status", "page"), ANSWERS)
def test_what_a_provider_repeats_is_taken_out(name, status, page, witness, monkeypatch):
    one = planted()[name]
    with Parrot(status, page=page) as server:
        witness.plant(one, monkeypatch, server.base_url)
        model = {"replicate": "replicate:" + "0" * 64, "openai": "openai:gpt-image-2"}
        options = {"model": model.get(one.provider, one.model)}
        make(one, witness, **options)
        for ask in (
            lambda: nbimg.generate("a cat", model=one.model, fallback=(), retries=1),
            lambda: setup.check(one.provider, {}, session.default()),
        ):
            try:
                witness.tell(ask())
            except nbimg.NbimgError as error:
                witness.tell(error)


@pytest.mark.parametrize("name", ["replicate", "openai openai"])
def test_a_download_that_is_sent_elsewhere_takes_no_key_there(name, witness, monkeypatch):
    class Sending(LocalServer):
        """Sends everything that comes to the API to another host."""

        def answer(self, call):
            if call.host == "api":
                return Reply(302, headers={"Location": f"{self.url('elsewhere')}/out.png"})
            return Reply(body=PICTURE, content_type="image/png")

    one = planted()[name]
    with witness.serve(Sending(hosts=("api", "elsewhere"))) as server:
        witness.plant(one, monkeypatch, server.base_url)
        own = session.default()
        data = own.portal.call(own.registry.get(one.provider).fetch, f"{server.base_url}/out.png")
        assert data == PICTURE
        first, second = server.requests
        assert first.headers["Authorization"].removeprefix("Bearer ") in one.keys.values()
        assert second.host == "elsewhere"
        assert "Authorization" not in second.headers


# ------------------------------------------------------------------ things that hold one


def test_what_holds_credentials_does_not_show_them_and_is_not_written(witness, monkeypatch):
    one = planted()["speedpix"]
    witness.plant(one, monkeypatch, "http://127.0.0.1:1")
    own = read_credentials({"speedpix": dict(one.keys)})
    options = CallOptions(credentials=own)
    made = Session()
    for name, value in own.items():
        made.keys.remember(name, value)
    for value in (own, options, made, made.keys, vars(made.keys), list(own.values())):
        witness.tell(value)
    with pytest.raises(TypeError, match="not written to disk"):
        pickle.dumps(options)
    with pytest.raises(TypeError, match="not written to disk"):
        json.dumps(dict(own), default=lambda secret: secret.__reduce__())
    made.close()
