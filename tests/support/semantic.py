"""Look-ups by meaning through the socket: projects that serve by it, and what was decided."""

from typing import Any

from tests.support.admin import dependency_of
from tests.support.journal import usage_in
from tests.support.product import Gateway, Project
from tests.support.raw_http import RawResponse
from tests.support.waiting import wait_for

QUESTION = "How do I reset my password?"
LIKE = "How can I reset my password?"
UNLIKE = "How do I reset my username?"
"""Most of its words are the question's, and another answer is due."""


def wait_until_warm(gateway: Gateway) -> Gateway:
    """Wait until questions are looked for by meaning."""
    wait_for(lambda: state_of(gateway) == "ok", "the semantic cache to be loaded", within=30)
    return gateway


def state_of(gateway: Gateway) -> str | None:
    """What `/health/ready` says of it; where that is no good news, with the reason that operators are told."""
    state = gateway.get("/health/ready").json()["dependencies"].get("semantic")
    return dependency_of(gateway, "semantic") if state in ("degraded", "failed") else state


def serving(gateway: Gateway, name: str = "by meaning", **settings: str) -> Project:
    """A new project that is served by meaning."""
    return gateway.installation.project(name, settings={"semantic": "on", **settings})


def outcome(answer: RawResponse) -> str:
    """The answer's X-WatchLLM-Cache."""
    assert answer.status == 200, answer
    return answer.header("X-WatchLLM-Cache") or ""


def rows_of(gateway: Gateway, project: Project, count: int) -> list[tuple[Any, ...]]:
    """(cache, semantic, similarity, confidence, semantic_reason, cost, saved) of the project's `count` requests."""
    columns = "cache, semantic, similarity, confidence, semantic_reason, cost_nanos, saved_nanos"

    def look() -> list[tuple[Any, ...]]:
        with usage_in(gateway.installation.home) as usage:
            usage.record()
            found = usage.query(
                f"SELECT {columns} FROM usage_logs WHERE project_id = '{project.id}' ORDER BY at_ms, id"
            )
        return [tuple(row) for row in found] if len(found) >= count else []

    return wait_for(look, f"{count} usage rows")


def reasons(gateway: Gateway, answer: RawResponse) -> tuple[str, str | None]:
    """Outcome and reason of an answer's look-up by meaning, as `watchllm explain` tells them."""
    told = gateway.explained(answer)["semantic"]
    return told["outcome"], told["reason"]


UNSTORED = {"Cache-Control": "no-store"}
NOT_ASKED = ("miss", "confidence")
"""Of a look-up whose doubt nobody could be asked about."""


def asked(gateway: Gateway, project: Project, text: str, **fields: object) -> RawResponse:
    """The answer to a question like a stored one, once that was written so that it can be shown to who is asked."""

    def ask() -> RawResponse | None:
        answer = gateway.chat(project.key, text, headers=UNSTORED, **fields)
        return None if reasons(gateway, answer) == NOT_ASKED else answer

    answer = wait_for(ask, "somebody to be asked")
    assert answer is not None
    return answer
