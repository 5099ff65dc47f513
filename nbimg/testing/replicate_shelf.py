"""What the local Replicate says of its models: one, its versions, a deployment, what a search finds.

Stage: tests. In: a request that only looks. Out: its answer, or None where there is nothing. No state.
Sources: https://replicate.com/docs/reference/http, https://replicate.com/changelog/2025-09-16-new-search-api
and https://replicate.com/changelog/2024-07-24-api-for-searching-public-models, read 2026-11-25.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from nbimg.testing.replicate_models import ReplicateModel
from nbimg.testing.server import Recorded, Reply

if TYPE_CHECKING:
    from nbimg.testing.replicate import ReplicateServer

__all__ = ["answer"]


def answer(server: ReplicateServer, call: Recorded, path: Sequence[str]) -> Reply | None:
    """Answer a request about models; None: there is no such thing."""
    match (call.method, *path):
        case ("GET", "v1", "models", owner, name):
            model = server.models.get(f"{owner}/{name}")
            return None if model is None else Reply.of(_described(server, model))
        case ("GET", "v1", "models", owner, name, "versions", *which):
            model = server.models.get(f"{owner}/{name}")
            return None if model is None else _versions(server, model, which)
        case ("GET", "v1", "deployments", owner, name):
            return _deployment(server, owner, name)
        case ("GET", "v1", "search") if server.searchable:
            return _search(server, call.query)
        case ("QUERY", "v1", "models"):
            found = [_described(server, model) for model in _matching(server, call.body.decode())]
            return Reply.of({"next": None, "previous": None, "results": found})
    return None


def _versions(server: ReplicateServer, model: ReplicateModel, which: Sequence[str]) -> Reply | None:
    if model.official:
        if which or server.official_versions == "missing":
            return None
        return Reply.of({"next": None, "previous": None, "results": []})
    version = _version(server, model)
    if not which:
        return Reply.of({"next": None, "previous": None, "results": [version]})
    return Reply.of(version) if list(which) == [model.version] else None


def _version(server: ReplicateServer, model: ReplicateModel) -> dict[str, Any]:
    return {
        "id": model.version,
        "created_at": server.utc(0),
        "cog_version": "0.16.0",
        "openapi_schema": model.openapi_schema,
    }


def _described(server: ReplicateServer, model: ReplicateModel) -> dict[str, Any]:
    owner, _, name = model.name.partition("/")
    return {
        "url": f"https://replicate.com/{model.name}",
        "owner": owner,
        "name": name,
        "description": "Makes pictures, locally.",
        "visibility": "public",
        "is_official": model.official,
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "run_count": sum(job.model == model.name for job in server.jobs),
        "cover_image_url": None,
        "default_example": None,
        "latest_version": _version(server, model),
    }


def _deployment(server: ReplicateServer, owner: str, name: str) -> Reply | None:
    model = server.models.get(server.deployments.get(f"{owner}/{name}", ""))
    if model is None:
        return None
    release = {
        "number": 1,
        "model": model.name,
        "version": model.version,
        "created_at": server.utc(0),
        "created_by": {"type": "user", "username": owner, "name": owner, "github_url": None},
        "configuration": {"hardware": "gpu-t4", "min_instances": 0, "max_instances": 1},
    }
    return Reply.of({"owner": owner, "name": name, "current_release": release})


def _search(server: ReplicateServer, query: str) -> Reply:
    asked = parse_qs(query)
    words, limit = asked.get("query", [""])[0], int(asked.get("limit", ["20"])[0])
    if not 1 <= limit <= 50:
        return Reply.of({"detail": "limit is from 1 to 50", "status": 400}, 400)
    found = [
        {
            "model": _described(server, model),
            "metadata": {
                "generated_description": f"Generate pictures with {model.name}.",
                "tags": ["text-to-image"],
                "score": 1.0,
            },
        }
        for model in _matching(server, words)[:limit]
    ]
    return Reply.of({"query": words, "models": found, "collections": [], "pages": []})


def _matching(server: ReplicateServer, words: str) -> list[ReplicateModel]:
    wanted = words.lower().split()
    return [model for name, model in server.models.items() if all(word in name for word in wanted)]
