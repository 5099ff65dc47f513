import json
import logging
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import nbimg
from nbimg import telemetry
from nbimg.testing import FAKE_TOKEN, Fault, Outcome


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", lambda: provider.get_tracer("nbimg"))
    return exporter.get_finished_spans


def test_a_request_is_one_span_that_says_how_it_ended(server, spans):
    nbimg.generate("a cat", model="flux-dev", n=2)
    (span,) = spans()
    assert span.name == "generate_image replicate:black-forest-labs/flux-dev"
    assert span.attributes["nbimg.status"] == "ok"
    assert span.attributes["nbimg.images"] == 2
    assert span.attributes["nbimg.cost_usd"] == pytest.approx(0.05)
    assert span.status.status_code is trace.StatusCode.UNSET


def test_a_failed_request_is_a_span_with_its_error_and_without_its_prompt(server, spans):
    server.expect(Outcome(status="failed", error="broken"))
    nbimg.generate(["a very private cat"], model="flux-dev", fallback=())
    (span,) = spans()
    assert span.attributes["error.type"] == "JobFailedError"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "private" not in span.to_json()


def test_the_tracer_is_that_of_the_installed_package():
    telemetry._tracer.cache_clear()
    assert telemetry._tracer() is not None


def test_without_the_package_there_is_nothing(tmp_path):
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from nbimg import telemetry; from nbimg.types import Request, ModelRef\n"
        "print(telemetry.begin(Request('a'), ModelRef('demo', '')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_every_attempt_is_one_line_at_debug_without_the_key(server, caplog):
    server.inject(Fault("html", status=503, method="GET", path="/v1/predictions/*", times=1))
    caplog.set_level(logging.DEBUG, logger="nbimg")
    nbimg.generate(["a cat"], model="flux-dev")
    lines = [r.getMessage() for r in caplog.records if r.name == "nbimg"]
    creates = [line for line in lines if " create " in line]
    polls = [line for line in lines if " poll " in line]
    assert len(creates) == 1
    assert len(polls) >= 2
    assert any("UnreachableError" in line for line in polls)
    assert all("\n" not in line for line in lines)
    assert FAKE_TOKEN not in json.dumps(lines)
    assert server.jobs[0].id in "".join(polls)
