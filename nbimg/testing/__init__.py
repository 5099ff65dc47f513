"""Local servers that behave like the providers, for tests without network, key or cost.

Public: an extension for ``nbimg``, or a user's own notebook, can be tried against them, too::

    with ReplicateServer() as server:
        ...  # point the client to server.base_url, with the key server.token
        assert not server.duplicates()

``nbimg.testing.conformance`` is one suite of tests for every backend, ``nbimg.testing.example`` an invented
provider that is as small as one can be, with its server.
"""

import sys

if "pytest" in sys.modules:  # so that it says what differs when a test of the suite fails
    sys.modules["pytest"].register_assert_rewrite("nbimg.testing.conformance")

from nbimg.testing.hunyuan import (
    FAKE_API_KEY,
    FAKE_SECRET_ID,
    FAKE_SECRET_KEY,
    HunyuanServer,
)
from nbimg.testing.openai import FAKE_OPENAI_KEY, OpenAIServer
from nbimg.testing.rates import RateLimit
from nbimg.testing.replicate import FAKE_TOKEN, ReplicateServer
from nbimg.testing.replicate_jobs import FAILURES, Job, Outcome
from nbimg.testing.replicate_models import BUILTIN_MODELS, COMMUNITY_MODEL, ReplicateModel
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply
from nbimg.testing.speedpix import FAKE_APP_KEY, FAKE_APP_SECRET, SpeedPixServer

__all__ = [
    "BUILTIN_MODELS",
    "COMMUNITY_MODEL",
    "FAILURES",
    "FAKE_API_KEY",
    "FAKE_APP_KEY",
    "FAKE_APP_SECRET",
    "FAKE_OPENAI_KEY",
    "FAKE_SECRET_ID",
    "FAKE_SECRET_KEY",
    "FAKE_TOKEN",
    "Fault",
    "HunyuanServer",
    "Job",
    "LocalServer",
    "OpenAIServer",
    "Outcome",
    "RateLimit",
    "Recorded",
    "ReplicateModel",
    "ReplicateServer",
    "Reply",
    "SpeedPixServer",
]
