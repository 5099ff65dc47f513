"""Spans for those who trace: one a request, when OpenTelemetry is installed, and nothing else.

Stage: beside the engine. Comes in: a request that begins, the result that it becomes. Goes out: a span of
the tracer `nbimg`; where it goes is the business of whoever set up a provider. Must not: hold a prompt, a
key or an address, or cost anything when the package is not there.

Attribute names: OpenTelemetry's conventions for generative AI (`gen_ai.*`), read 2026-11 in
opentelemetry-semantic-conventions 0.66b2.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

from nbimg.types import ModelRef, Request, Result, Status

__all__ = ["begin"]


def begin(request: Request, ref: ModelRef) -> Callable[[Result], None] | None:
    """Begin the span of a request; call what is returned with its result. None: nobody traces."""
    tracer = _tracer()
    if tracer is None:
        return None
    span = tracer.start_span(
        f"generate_image {ref.full}",
        attributes={
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": ref.provider,
            "gen_ai.request.model": ref.model or ref.provider,
            "gen_ai.output.type": "image",
            "nbimg.images": request.n,
        },
    )

    def end(result: Result) -> None:
        span.set_attribute("gen_ai.response.model", result.model)
        span.set_attribute("nbimg.status", result.status.value)
        span.set_attribute("nbimg.attempts", len(result.attempts))
        if result.cost_usd is not None:
            span.set_attribute("nbimg.cost_usd", result.cost_usd)
        if result.status not in (Status.OK, Status.CANCELLED):
            from opentelemetry.trace import Status as SpanStatus
            from opentelemetry.trace import StatusCode

            kind = result.error.kind if result.error else result.status.value
            span.set_attribute("error.type", kind)
            span.set_status(SpanStatus(StatusCode.ERROR, kind))
        span.end()

    return end


@functools.cache
def _tracer() -> Any:
    """The tracer of OpenTelemetry's API; None where it is not installed."""
    try:
        found = importlib.util.find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        return None
    from opentelemetry import trace

    return trace.get_tracer("nbimg")
