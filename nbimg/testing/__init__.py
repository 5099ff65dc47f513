"""Local servers that behave like the providers, for tests without network, key or cost.

Public: an extension for ``nbimg``, or a user's own notebook, can be tried against them, too::

    with ReplicateServer() as server:
        ...  # point the client to server.base_url, with the key server.token
        assert not server.duplicates()
"""

from nbimg.testing.rates import RateLimit
from nbimg.testing.replicate import FAKE_TOKEN, ReplicateServer
from nbimg.testing.replicate_jobs import FAILURES, Job, Outcome
from nbimg.testing.replicate_models import BUILTIN_MODELS, COMMUNITY_MODEL, ReplicateModel
from nbimg.testing.server import Fault, LocalServer, Recorded, Reply

__all__ = [
    "BUILTIN_MODELS",
    "COMMUNITY_MODEL",
    "FAILURES",
    "FAKE_TOKEN",
    "Fault",
    "Job",
    "LocalServer",
    "Outcome",
    "RateLimit",
    "Recorded",
    "ReplicateModel",
    "ReplicateServer",
    "Reply",
]
