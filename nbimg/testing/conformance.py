"""One suite of tests for every backend: what a provider does badly, and what must come of it.

Stage: tests, of nbimg and of a backend of one's own. In: a subclass, which says how the provider's local
server is made and made to misbehave. Out: tests that pytest collects with the subclass. They go the way of
a user (`nbimg.generate`, `edit`, `batch`, `submit`, `resume`), with the real engine, store and journal.

    from nbimg.testing.conformance import BackendConformance, Place

    class TestSketch(BackendConformance):
        provider, model, backend = "sketch", "sketch:ink", SketchBackend
        keys = ("SKETCH_KEY",)
        create = Place("POST", "/images")
        poll = Place("GET", "/images/*")
        output = Place("GET", "/files/*")

        def make_server(self):
            return SketchServer()

        def environ(self, server):
            return {"SKETCH_URL": server.base_url, "SKETCH_KEY": server.token}

Import `nbimg.testing` before this module, so that pytest can say what differs when a test fails.
"""

# ruff: noqa: D102  # the names of the tests are sentences, and there are many

from __future__ import annotations

import base64
import io
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

import nbimg
from nbimg import config, session
from nbimg.backends import registry
from nbimg.engine import pace
from nbimg.errors import KeyMissingError
from nbimg.testing.pictures import render_picture
from nbimg.testing.server import Fault
from nbimg.types import Result, Status

__all__ = ["BOMB", "BackendConformance", "Place", "inline", "noise"]

Cause = Fault | Callable[[Any], None] | None


class Place(NamedTuple):
    """Which requests are meant: patterns for method and path, as in `Fault`."""

    method: str
    path: str


#: What a provider may answer → the error that it must become.
FAILURES: Mapping[str, str] = {
    "bad_key": "KeyRejectedError",
    "no_money": "QuotaExceededError",
    "refused": "ContentRefusedError",
    "bad_input": "RejectedError",
    "failed": "JobFailedError",
    "rate": "BusyError",
    "crowded": "BusyError",
}
#: Statuses of plain HTTP, for those that a subclass does not list.
_USUAL = {"bad_key": 401, "no_money": 402, "bad_input": 422, "rate": 429}


def _bomb() -> bytes:
    """A PNG of 50,000 x 50,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(4_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


BOMB = _bomb()
"""A small file that would fill the memory of whoever decodes it."""

_PICTURE = render_picture("an input image", "png", 24, 16)
_NOT_PICTURES = {
    "bomb": BOMB,
    "page": b"<!doctype html><html><body>Sign in</body></html>",
    "nothing": b"",
    "half": _PICTURE[: len(_PICTURE) // 2],
}

#: Faults of a create, each before and after the request took effect.
_CREATE_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "dropped before": {"kind": "drop", "when": "before"},
    "dropped after": {"kind": "drop", "when": "after"},
    "reset after": {"kind": "drop", "when": "after", "reset": True},
    "502 page before": {"kind": "html", "when": "before"},
    "502 page after": {"kind": "html", "when": "after"},
    "a page with 200": {"kind": "html", "when": "before", "status": 200},
    "500 before": {"kind": "error", "when": "before", "status": 500},
    "500 after": {"kind": "error", "when": "after", "status": 500},
    "truncated": {"kind": "truncate"},
    "cut JSON": {"kind": "cut"},
    "empty object": {"kind": "body", "body": b"{}"},
    "null": {"kind": "body", "body": b"null"},
    "a list": {"kind": "body", "body": b"[1]"},
    "called text": {"kind": "content_type"},
    "closed behind": {"kind": "close"},
}
#: Faults of a poll: all of them pass, and cost nothing.
_POLL_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "dropped": {"kind": "drop"},
    "502 page": {"kind": "html"},
    "a page with 200": {"kind": "html", "status": 200},
    "500": {"kind": "error", "status": 500},
    "truncated": {"kind": "truncate"},
    "cut JSON": {"kind": "cut"},
    "null": {"kind": "body", "body": b"null"},
    "called text": {"kind": "content_type"},
    "closed behind": {"kind": "close"},
}
#: Faults of a download: fetched again, never paid again.
_OUTPUT_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "dropped": {"kind": "drop"},
    "502 page": {"kind": "html"},
    "a page with 200": {"kind": "html", "status": 200},
    "truncated": {"kind": "truncate"},
    "cut": {"kind": "cut"},
    "called text": {"kind": "content_type"},
    "slow": {"kind": "drip", "delay_s": 0.2},
}


class BackendConformance:
    """Tests of one backend; a subclass says what the provider is like.

    Attributes:
        provider: Its name, as in `provider:model`.
        model: What the tests run: an alias, or `provider:model`.
        backend: For one that is not built in: what `register_backend` takes, for the time of a test.
        keys: The variables of `environ` that hold credentials; empty: it needs none.
        create: The request that makes a job.
        poll: Of the one that asks how a job stands; None: the create answers with the images.
        output: Of a download; None: the images come inside an answer. Override `deliver` then.
        trusted: Those of the server's hosts that may see a credential.
        options: For each call, for example `{"params": {...}}`.
        failures: Name in `FAILURES` → a `Fault`, or a function that takes the server and makes it fail
            like that for good; None: the provider has no such answer. Those that are missing are plain
            HTTP statuses (401, 402, 422, 429), or not there.
        finds: Whether it has a list in which a lost job is found.
        cancels: Whether it can stop a job; override `stopped` then.
        edits: Whether the model takes an input image.
        references: How many at most become one picture.
        seeds: Whether the model takes a seed; override `sent_seeds` then.
    """

    provider: ClassVar[str]
    model: ClassVar[str]
    backend: ClassVar[Any] = None
    keys: ClassVar[tuple[str, ...]] = ()
    create: ClassVar[Place]
    poll: ClassVar[Place | None] = None
    output: ClassVar[Place | None] = None
    trusted: ClassVar[tuple[str, ...]] = ("api",)
    options: ClassVar[Mapping[str, Any]] = {}
    failures: ClassVar[Mapping[str, Cause]] = {}
    finds: ClassVar[bool] = False
    cancels: ClassVar[bool] = False
    edits: ClassVar[bool] = False
    references: ClassVar[int] = 1
    seeds: ClassVar[bool] = False

    # ------------------------------------------------------------ what a subclass says

    def make_server(self) -> Any:
        """Return the provider's local server, a `LocalServer`, not yet started."""
        raise NotImplementedError

    def environ(self, server: Any) -> Mapping[str, str]:
        """Return the variables with which a session speaks to `server`, credentials included."""
        raise NotImplementedError

    def accepted(self, server: Any) -> int:
        """Return how many jobs the server has accepted, whether or not we learned of it."""
        return len(server.jobs)

    def stopped(self, server: Any) -> int:
        """Return how many jobs the server has stopped because it was asked to."""
        raise NotImplementedError

    def sent_seeds(self, server: Any) -> list[int]:
        """Return the seeds of the jobs that were accepted, in any order."""
        raise NotImplementedError

    def slow(self, server: Any, seconds: float) -> None:
        """Let each job take so long from now on, in seconds of the wall clock."""
        if self.poll is None:
            server.inject(Fault("delay", *self.create, when="after", delay_s=seconds, times=None))
        else:
            server.running_s = seconds

    def deliver(self, server: Any, data: bytes) -> None:
        """Let every image be `data` from now on."""
        if self.output is None:
            raise NotImplementedError("say how the server puts these bytes into its answer")
        server.inject(Fault("body", *self.output, body=data, times=None))

    # ------------------------------------------------------------ a kernel, a server

    @pytest.fixture
    def server(self) -> Iterator[Any]:
        """The provider's local server."""
        with self.make_server() as running:
            yield running

    @pytest.fixture(autouse=True)
    def _kernel(
        self,
        server: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> Iterator[None]:
        """A session of its own in an empty folder; afterwards no secret is anywhere."""
        for name in list(os.environ):
            if name.startswith("NBIMG_") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        quick = {"NBIMG_RETRY_MIN_S": "0.01", "NBIMG_RETRY_MAX_S": "0.02"}
        environ = self.environ(server)
        for name, value in {**quick, **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(pace, "FIRST_S", 0.01)
        monkeypatch.setattr(pace, "SHORTEST_S", 0.01)
        monkeypatch.setattr(session, "_default", None)
        config.kernel.cache_clear()
        if self.backend is not None:
            monkeypatch.setitem(registry._added, self.provider, self.backend)
        with caplog.at_level(logging.DEBUG):
            yield
            if session._default is not None:
                session._default.close()
                session._default = None
        secrets = {environ[name] for name in self.keys} | set(self.wrong(environ).values())
        shown = capsys.readouterr()
        logged = "\n".join(record.getMessage() for record in caplog.get_records("call"))
        self._no_secret(secrets, logged + shown.out + shown.err, tmp_path)
        self._no_credential_elsewhere(secrets, server)

    def _no_secret(self, secrets: set[str], text: str, folder: Path) -> None:
        files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for secret in secrets:
            assert secret not in text, "a credential was logged or printed"
            for path, data in files.items():
                assert secret.encode() not in data, f"a credential is in {path.name}"

    def _no_credential_elsewhere(self, secrets: set[str], server: Any) -> None:
        for call in server.requests:
            if call.host in self.trusted:
                continue
            assert "Authorization" not in call.headers, f"{call.path} saw the Authorization header"
            sent = " ".join([call.path, call.query, *call.headers.values()]).encode() + call.body
            for secret in secrets:
                assert secret.encode() not in sent, f"{call.host}{call.path} saw a credential"

    def wrong(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return a credential of the right form that the server does not accept."""
        return {name: environ[name][:-6] + "wr0ng9" for name in self.keys}

    def made(self, *prompts: str, **options: Any) -> list[Result]:
        """Make the images of these prompts; a failed one does not raise."""
        known = {"model": self.model, "fallback": (), **self.options, **options}
        return list(nbimg.generate(list(prompts), **known))

    def inject(self, server: Any, place: Place | None, **fault: Any) -> None:
        """Let something go wrong at a place; a test of a place that is not there is skipped."""
        if place is None:
            pytest.skip("the provider has no such request")
        server.inject(Fault(method=place.method, path=place.path, **fault))

    def cause(self, server: Any, failure: str) -> None:
        """Make every job, or every create, fail like that; skip the test when none can."""
        usual = None
        if failure in _USUAL:
            status = _USUAL[failure]
            usual = Fault("error", *self.create, status=status, times=None, retry_after_s=1)
        cause = self.failures.get(failure, usual)
        if cause is None:
            pytest.skip(f"the provider has no answer {failure!r}")
        elif isinstance(cause, Fault):
            server.inject(cause)
        else:
            cause(server)

    def once_accepted(self, server: Any, seconds: float = 5.0) -> None:
        """Wait until a job is accepted."""
        until = time.monotonic() + seconds
        while not self.accepted(server):
            assert time.monotonic() < until, "no job was accepted"
            time.sleep(0.01)

    # ------------------------------------------------------------ what is asked for is made

    def test_one_image_is_made_and_is_on_disk(self, server: Any) -> None:
        (result,) = self.made("a red house")
        assert result.status is Status.OK, result.error
        assert len(result.images) == 1
        assert result.images[0].pil().size == (result.images[0].width, result.images[0].height)
        assert self.accepted(server) == 1

    def test_several_variants_are_all_made(self, server: Any) -> None:
        (result,) = self.made("a red house", n=3)
        assert result.status is Status.OK, result.error
        assert len(result.images) == 3
        assert 1 <= self.accepted(server) <= 3

    def test_several_tasks_end_in_the_order_in_which_they_were_asked(self, server: Any) -> None:
        prompts = [f"picture {number}" for number in range(6)]
        results = self.made(*prompts)
        assert [result.status for result in results] == [Status.OK] * 6
        assert [result.request.prompt for result in results] == prompts
        assert self.accepted(server) == 6

    def test_a_prompt_of_any_letters_arrives(self, server: Any) -> None:
        (result,) = self.made('naïve 猫 🐈 "quoted" \\ back, a tab\t, a line\nbreak')
        assert result.status is Status.OK, result.error

    @pytest.mark.parametrize("shape", [{"size": "1024x768"}, {"ar": "16:9"}])
    def test_a_shape_is_kept_or_what_became_of_it_is_said(
        self, server: Any, shape: dict[str, str]
    ) -> None:
        (result,) = self.made("wide", **shape)
        assert result.status is Status.OK, result.error
        (image,) = result.images
        ratio = image.width / image.height
        wanted = 16 / 9 if "ar" in shape else 4 / 3
        exact = f"{image.width}x{image.height}" == shape.get("size")
        assert exact or result.notices or ("ar" in shape and abs(ratio / wanted - 1) < 0.05)

    def test_variants_have_consecutive_seeds_and_say_so(self, server: Any) -> None:
        (result,) = self.made("a red house", n=3, seed=41)
        if not self.seeds:
            assert all(image.seed is None for image in result.images)
            return
        assert [image.seed for image in result.images] == [41, 42, 43]
        assert sorted(self.sent_seeds(server)) == [41, 42, 43]

    def test_an_edit_takes_its_image_in(self, server: Any) -> None:
        if not self.edits:
            pytest.skip("the model takes no image")
        (result,) = nbimg.edit([_PICTURE], "in winter", model=self.model, **self.options)
        assert result.status is Status.OK, result.error
        assert self.accepted(server) == 1

    def test_a_large_input_image_arrives(self, server: Any) -> None:
        if not self.edits:
            pytest.skip("the model takes no image")
        picture = noise(640)
        assert len(picture) > 1_200_000
        (result,) = nbimg.edit([picture], "in winter", model=self.model, **self.options)
        assert result.status is Status.OK, result.error

    def test_several_references_become_one_picture(self, server: Any) -> None:
        if self.references < 2:
            pytest.skip("the model takes one image at most")
        images = [render_picture(f"reference {n}", "png", 20, 20) for n in range(self.references)]
        (result,) = nbimg.edit(images, "together", mode="combine", model=self.model, **self.options)
        assert result.status is Status.OK, result.error
        assert self.accepted(server) == 1

    def test_addresses_only_downloads_nothing(self, server: Any) -> None:
        if self.output is None:
            pytest.skip("the images come inside an answer")
        (result,) = self.made("a red house", url_only=True)
        assert result.images[0].path is None
        assert str(result.images[0].url).startswith("http")
        assert server.count(*self.output) == 0

    def test_a_model_that_does_not_exist_is_refused_and_not_paid(self, server: Any) -> None:
        name = f"{self.provider}:nobody/no-such-model"
        with pytest.raises(nbimg.NbimgError):
            nbimg.generate("x", model=name, fallback=())
        assert self.accepted(server) == 0

    # ------------------------------------------------------------ failures have their error

    @pytest.mark.parametrize("failure", FAILURES)
    def test_a_failure_has_its_error(self, server: Any, failure: str) -> None:
        self.cause(server, failure)
        (result,) = self.made("x", retries=2)
        assert result.error is not None, "it did not fail"
        assert result.error.kind == FAILURES[failure], result.error
        assert result.status is (Status.REFUSED if failure == "refused" else Status.FAILED)
        assert len(result.error.message) < 600
        assert "\n" not in result.error.message
        assert self.accepted(server) <= 1
        creates = server.count(*self.create)
        again = FAILURES[failure] == "BusyError"
        assert creates == 2 if again else creates <= 1, "sent again, or not"

    def test_a_rate_limit_that_passes_costs_nothing(self, server: Any) -> None:
        rate = Fault("error", *self.create, status=429, retry_after_s=1)
        for cause in (self.failures.get("rate", rate), self.failures.get("crowded")):
            if isinstance(cause, Fault):
                server.inject(replace(cause, times=1))
        (result,) = self.made("x", retries=5)
        assert result.status is Status.OK, result.error
        assert self.accepted(server) == 1

    def test_a_wrong_credential_is_said_without_showing_it(
        self, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not self.keys:
            pytest.skip("the provider needs no key")
        wrong = self.wrong(self.environ(server))
        for name, value in wrong.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(nbimg.NbimgError) as caught:
            nbimg.generate("x", model=self.model, fallback=(), **self.options)
        chain = [caught.value, caught.value.__cause__]
        assert "KeyRejectedError" in [type(error).__name__ for error in chain]
        shown = "".join(caught.value._render_traceback_()) + repr(caught.value) + str(chain)
        assert not [value for value in wrong.values() if value in shown]
        assert self.accepted(server) == 0

    def test_without_a_credential_nothing_is_sent(
        self, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not self.keys:
            pytest.skip("the provider needs no key")
        for name in self.keys:
            monkeypatch.delenv(name)
        with pytest.raises(nbimg.NbimgError) as caught:
            nbimg.generate("x", model=self.model, fallback=(), **self.options)
        error = caught.value
        assert isinstance(error, KeyMissingError) or self.keys[0] in str(error)
        assert server.count(*self.create) == 0

    def test_a_provider_that_cannot_be_reached_is_named(
        self, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with self.make_server() as gone:
            environ = self.environ(gone)
            address = gone.base_url
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        (result,) = self.made("x", retries=2)
        assert result.error is not None
        assert result.error.kind == "UnreachableError"
        assert address in result.error.message

    # ------------------------------------------------------------ never paid twice

    @pytest.mark.parametrize("fault", _CREATE_FAULTS)
    def test_a_create_is_never_accepted_twice(self, server: Any, fault: str) -> None:
        self.inject(server, self.create, **_CREATE_FAULTS[fault])
        (result,) = self.made("x")
        assert self.accepted(server) <= 1
        if self.finds or fault in {"called text", "closed behind"}:
            assert result.status is Status.OK, result.error
            assert self.accepted(server) == 1
        assert result.status in {Status.OK, Status.UNKNOWN}, result.error

    def test_what_was_lost_after_acceptance_is_found_or_said_to_be_unknown(
        self, server: Any
    ) -> None:
        self.inject(server, self.create, kind="drop", when="after")
        (result,) = self.made("x")
        assert result.status is (Status.OK if self.finds else Status.UNKNOWN), result.error
        assert list(nbimg.resume()) == [] or not self.finds
        assert self.accepted(server) == 1
        assert server.count(*self.create) == 1

    def test_an_edit_that_was_lost_is_found_or_said_to_be_unknown(self, server: Any) -> None:
        if not self.edits:
            pytest.skip("the model takes no image")
        self.inject(server, self.create, kind="drop", when="after")
        (result,) = self.made("in winter", image=[_PICTURE])
        assert result.status is (Status.OK if self.finds else Status.UNKNOWN), result.error
        assert self.accepted(server) == 1

    def test_twins_that_are_lost_are_each_paid_once(self, server: Any) -> None:
        self.inject(server, self.create, kind="drop", when="after", times=2)
        results = self.made("same", "same", "same", concurrency=2)
        assert self.accepted(server) <= 3
        assert all(result.status in {Status.OK, Status.UNKNOWN} for result in results)

    # ------------------------------------------------------------ what is paid is fetched

    @pytest.mark.parametrize("fault", _POLL_FAULTS)
    def test_a_look_that_fails_is_taken_again(self, server: Any, fault: str) -> None:
        self.inject(server, self.poll, **_POLL_FAULTS[fault])
        (result,) = self.made("x")
        assert result.status is Status.OK, result.error
        assert self.accepted(server) == 1

    @pytest.mark.parametrize("fault", _OUTPUT_FAULTS)
    def test_a_spoilt_download_is_fetched_again(self, server: Any, fault: str) -> None:
        self.inject(server, self.output, **_OUTPUT_FAULTS[fault])
        (result,) = self.made("x")
        assert result.status is Status.OK, result.error
        assert self.accepted(server) == 1

    @pytest.mark.parametrize("what", _NOT_PICTURES)
    def test_what_is_no_picture_is_never_taken_for_one(self, server: Any, what: str) -> None:
        self.deliver(server, _NOT_PICTURES[what])
        (result,) = self.made("x", retries=2)
        assert result.status in {Status.FAILED, Status.UNKNOWN}
        assert result.error is not None
        assert result.images == ()
        assert self.accepted(server) == 1

    def test_an_output_that_is_gone_is_said_to_be(self, server: Any) -> None:
        self.inject(server, self.output, kind="error", status=404, times=None)
        (result,) = self.made("x", retries=2)
        assert result.status is Status.FAILED
        assert result.error is not None
        assert result.error.http_status == 404 or "404" in result.error.message
        assert self.accepted(server) == 1

    @pytest.mark.parametrize("stage", ["poll", "output"])
    def test_what_could_not_be_fetched_is_fetched_later(self, server: Any, stage: str) -> None:
        if self.poll is None:
            pytest.skip("the provider gives no job id")
        self.inject(server, getattr(self, stage), kind="html", times=2)
        (result,) = self.made("x", retries=2)
        assert result.status is Status.FAILED
        (later,) = nbimg.resume()
        assert later.status is Status.OK, later.error
        assert self.accepted(server) == 1

    # ------------------------------------------------------------ slow, stopped, late

    def test_a_slow_job_is_waited_for(self, server: Any) -> None:
        self.slow(server, 0.5)
        (result,) = self.made("x")
        assert result.status is Status.OK, result.error
        assert self.accepted(server) == 1

    def test_a_task_ends_with_its_time_out(self, server: Any) -> None:
        self.slow(server, 20)
        began = time.monotonic()
        (result,) = self.made("x", timeout=0.4)
        assert time.monotonic() - began < 8
        assert result.status in {Status.FAILED, Status.UNKNOWN}
        assert self.accepted(server) <= 1

    def test_a_call_that_is_stopped_ends_at_once_and_stops_its_job(self, server: Any) -> None:
        self.slow(server, 20)
        job = nbimg.submit(["x"], model=self.model, fallback=(), **self.options)
        self.once_accepted(server)
        time.sleep(0.1)
        began = time.monotonic()
        job.cancel()
        (result,) = job.wait()
        assert time.monotonic() - began < 8
        assert result.status in {Status.CANCELLED, Status.UNKNOWN}
        assert self.accepted(server) == 1
        if self.cancels:
            assert self.stopped(server) == 1


def noise(side_px: int) -> bytes:
    """Return a square PNG that does not compress."""
    from PIL import Image

    target = io.BytesIO()
    Image.frombytes("RGB", (side_px, side_px), os.urandom(side_px * side_px * 3)).save(
        target, "PNG"
    )
    return target.getvalue()


def inline(data: bytes) -> bytes:
    """Return `data` as an answer `{"data": [{"b64_json": …}]}`, for providers that answer so."""
    return json.dumps({"data": [{"b64_json": base64.b64encode(data).decode()}]}).encode()
