"""Keeps the question of an answer that was stored, so that like questions find it: a moment later, when the answer is
on its way to who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from watchllm.cache.entry import Entry
from watchllm.cache.semantic.question import NotTried
from watchllm.providers.dialect import CHAT, MESSAGES
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.semantic.asks import Asks, asks_of

if TYPE_CHECKING:
    from watchllm.cache.semantic.engine import Engine, Question
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services
    from watchllm.routing.target import Target

_MAX_ANSWER = 1 << 20
"""Bytes of an answer that is kept for like questions: it is read once more for that."""
_decode = msgspec.json.Decoder().decode


def keep_later(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Target,
    answered: Target,
    key: bytes,
    body: bytes,
) -> None:
    """Keep the question `body` of the answer that `answered` gave, and that was stored under `key`.

    `asked` is the target that was looked for; after a fallback it is another one, and so is the context.
    """
    keep = partial(_keep, services, request, endpoint, asked, answered, key, body)
    services.loop.call_soon(_when_at_hand, services, request, key, keep)


def _when_at_hand(services: Services, request: Request, key: bytes, keep: Callable[[], None]) -> None:
    """Call `keep` when what was stored under `key` is at hand: of a shared cache, it may have to be fetched again."""
    principal = request.principal
    if principal is not None and not services.cache.fetch(principal.tenant.partition, (key,), keep):
        keep()


def _keep(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Target,
    answered: Target,
    key: bytes,
    body: bytes,
) -> None:
    engine, principal, found = services.semantic.engine, request.principal, request.looked
    if engine is None or principal is None:
        return
    # As others will see it: not there if it was too large to be stored, or invalidated since.
    entry = services.cache.get(principal.tenant.partition, key)
    if entry is None or not ends_by_itself(entry):
        return
    settings = principal.tenant.settings
    with_text = settings.judge_model is not None or (settings.cross_encoder and engine.cross_encoding is not None)
    if found is not None and found.partition is not None and found.question is not None and answered is asked:
        engine.keep(found.partition, key, found.question, entry, with_text=with_text)
        return
    asks = asks_of(services, request, endpoint, answered, body, engine)
    if isinstance(asks, NotTried):
        return
    if engine.is_quick(asks.text):
        _put(engine, asks, key, entry, engine.read(asks.text), with_text=with_text)
        return
    engine.read_later(
        asks.text, asks.partition, lambda question: _put(engine, asks, key, entry, question, with_text=with_text)
    )


def _put(engine: Engine, asks: Asks, key: bytes, entry: Entry, question: Question, *, with_text: bool) -> None:
    if not question.features.too_long:
        engine.keep(asks.partition, key, question, entry, with_text=with_text)


def ends_by_itself(entry: Entry) -> bool:
    """Whether an answer is text that its model ended by itself, without calling a tool or refusing."""
    if len(entry.body) > _MAX_ANSWER:
        return False
    answer = _decode(entry.body)
    if entry.dialect == CHAT:
        return _completion_ends(answer, entry.kind)
    if entry.dialect == MESSAGES:
        return answer["stop_reason"] in ("end_turn", "stop_sequence") and _only(answer["content"], "text", "thinking")
    return (
        answer["status"] == "completed"
        and _only(answer["output"], "message", "reasoning")
        and all(_only(item["content"], "output_text") for item in answer["output"] if item["type"] == "message")
    )


def _completion_ends(answer: Any, kind: str) -> bool:
    choices = answer["choices"]
    if len(choices) != 1 or choices[0].get("finish_reason") != "stop":
        return False
    if kind == "completions":
        return True
    message = choices[0]["message"]
    return type(message.get("content")) is str and not any(message.get(field) for field in _NOT_TEXT)


_NOT_TEXT = ("tool_calls", "function_call", "refusal", "audio")


def _only(items: list[Any], *kinds: str) -> bool:
    return all(item.get("type") in kinds for item in items)
