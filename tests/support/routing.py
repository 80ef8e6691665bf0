"""Projects with several providers for tests of routing: what the providers say, and what is recorded of the calls."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.support.journal import Usage, usage_in
from tests.support.product import Gateway, Installation, Project
from tests.support.raw_http import RawResponse
from tests.support.scripted_upstream import Call, Script, ScriptedUpstream, scripted_upstream
from tests.support.waiting import wait_for
from watchllm.domain.snapshot import RouteRecord

MINI, LLAMA = "openai/gpt-4o-mini", "groq/llama-3.1-8b-instant"
"""Two models of two providers, both with a known price."""


def says(text: str) -> Script:
    """Answers a chat completion, as a stream where one is asked for."""

    def script(call: Call) -> None:
        asked = json.loads(call.body)
        if asked.get("stream"):
            call.reply(200, stream_of(asked["model"], text) + b"data: [DONE]\n\n", content_type="text/event-stream")
        else:
            call.reply(200, completion(asked["model"], text))

    return script


def completion(model: str, text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}
    return json.dumps(body).encode()


def stream_of(model: str, text: str, *, ends: bool = True) -> bytes:
    """The events of a streamed answer up to its end marker; without `ends` it is cut in the middle."""
    common = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"role": "assistant", "content": text}}]
    if ends:
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return b"".join(b"data: " + json.dumps(common | {"choices": [one]}).encode() + b"\n\n" for one in choices)


def fails(status: int, **headers: str) -> Script:
    """Answers an error; underscores in names become hyphens."""
    body = json.dumps({"error": {"message": f"scripted {status}", "type": "scripted", "code": None}}).encode()
    return lambda call: call.reply(status, body, **headers)


def by_key(**scripts: Script) -> Script:
    """Answers each key, by the end of its secret, in its own way."""

    def script(call: Call) -> None:
        secret = (call.headers.get("authorization") or call.headers.get("x-api-key") or "").rpartition("-")[2]
        scripts[secret](call)

    return script


def in_turn(*scripts: Script) -> Script:
    """Answers one request after the other in another way; the last of them answers all that come then."""
    left = list(scripts)
    return lambda call: (left.pop(0) if len(left) > 1 else left[0])(call)


class Waits:
    """A script that says nothing; `left` counts the callers that gave up."""

    def __init__(self) -> None:
        self.left = 0

    def __call__(self, call: Call) -> None:
        call.connection.settimeout(30)
        try:
            gone = call.rfile.read(1) == b""
        except OSError:
            gone = True
        self.left += gone
        call.hang_up()


class Routed:
    """A project of `gateway` whose OpenAI is `openai` and whose Groq is `groq`, two scripted providers. `asked` counts
    what went through `ask`."""

    def __init__(self, gateway: Gateway, project: Project, openai: ScriptedUpstream, groq: ScriptedUpstream) -> None:
        self.gateway = gateway
        self.project = project
        self.openai = openai
        self.groq = groq
        self.asked = 0

    @property
    def installation(self) -> Installation:
        return self.gateway.installation

    def add_key(self, provider: str, name: str, priority: int = 0) -> str:
        """Another key, whose secret ends in `name`; its id."""
        upstream = self.openai if provider == "openai" else self.groq
        with self.installation.control_plane() as plane:
            secret = f"sk-0123456789-{name}"
            key = plane.add_provider_key(
                self.project.id, provider, secret, base_url=upstream.base_url, priority=priority
            )
        return key.id

    def route(self, name: str, *choices: str | tuple[str, int], fallbacks: tuple[str, ...] = (), **policy: Any) -> None:
        weighted = tuple((choice, 1) if isinstance(choice, str) else choice for choice in choices)
        with self.installation.control_plane() as plane:
            plane.set_route(self.project.id, RouteRecord(name, weighted, fallbacks, **policy))

    def ask(self, text: str = "Hello?", *, model: str = "fast", **fields: Any) -> RawResponse:
        self.asked += 1
        return self.gateway.chat(self.project.key, text, model=model, **fields)

    def calls(self) -> tuple[int, int]:
        """How many requests OpenAI and Groq received."""
        return len(self.openai.calls), len(self.groq.calls)

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The project's `count` usage rows as the recorder writes them, attempts read; checks the sums over all."""
        with usage_in(self.installation.home) as usage:
            rows = wait_for(lambda: self._rows(usage, count), f"{count} usage rows")
            assert rows is not None
            assert len(rows) == count
            assert usage.rollups() == usage.rollups_from_rows()
            assert usage.key_uses() == usage.key_uses_from_rows()
        return rows

    def _rows(self, usage: Usage, count: int) -> list[dict[str, Any]] | None:
        usage.record()
        columns = ("status", "ended", "error", "provider", "model", "cache", "cost_nanos", "attempts")
        found = usage.query(
            f"SELECT {', '.join(columns)} FROM usage_logs WHERE project_id = '{self.project.id}' ORDER BY id"
        )
        rows = [dict(zip(columns, row, strict=True)) for row in found]
        for row in rows:
            row["attempts"] = json.loads(row["attempts"]) if row["attempts"] else []
            for attempt in row["attempts"]:
                attempt.setdefault("hedged", False)
        return rows if len(rows) >= count else None


@contextmanager
def routed(gateway: Gateway, settings: Mapping[str, str] | None = None) -> Iterator[Routed]:
    """A new such project with one key at each provider, `sk-…-one`; both answer with their name."""
    with ExitStack() as stack:
        openai, groq = (stack.enter_context(scripted_upstream(says(name))) for name in ("openai", "groq"))
        new = Routed(gateway, gateway.installation.project("routed", settings=settings), openai, groq)
        new.add_key("openai", "one")
        new.add_key("groq", "one")
        yield new


def text_of(answer: RawResponse) -> str:
    assert answer.status == 200, answer
    return str(answer.json()["choices"][0]["message"]["content"])


def tried(answer: RawResponse) -> tuple[str | None, str | None]:
    """Who answered, and who was tried before."""
    return answer.header("x-watchllm-provider"), answer.header("x-watchllm-fallback")


def cache_of(answer: RawResponse) -> str | None:
    return answer.header("x-watchllm-cache")


Asks = Callable[[Routed], RawResponse]
