"""Embeddings for tests: how they are asked for, and a provider whose vectors say how long their texts are."""

import json
from typing import Any

from tests.support.product import Gateway
from tests.support.raw_http import RawResponse
from tests.support.scripted_upstream import Call, ScriptedUpstream

PATH = "/v1/embeddings"
MODEL = "text-embedding-3-small"  # 20 nano-dollars a token.


def cache_of(answer: RawResponse) -> str | None:
    return answer.header("X-WatchLLM-Cache")


def answered(call: Call, data: list[dict[str, Any]], **more: Any) -> None:
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    call.reply(200, json.dumps({"object": "list", "data": data, "model": "m", "usage": usage} | more).encode())


def vectors(call: Call, length: int = 3) -> None:
    """As it should be: each text's vector says how long it is."""
    given = json.loads(call.body)["input"]
    items = [given] if isinstance(given, str) else given
    answered(
        call,
        [
            {"object": "embedding", "index": at, "embedding": [len(text) + 0.5] * length}
            for at, text in enumerate(items)
        ],
    )


def post(gateway: Gateway, key: str, given: Any, **headers: str) -> RawResponse:
    return gateway.post(PATH, key, {"model": MODEL, "input": given}, headers=headers)


def key_behind(gateway: Gateway, upstream: ScriptedUpstream, **settings: str) -> str:
    """The key of a new project whose OpenAI is `upstream`."""
    project = gateway.installation.project("embeddings", settings=settings)
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
    return project.key
