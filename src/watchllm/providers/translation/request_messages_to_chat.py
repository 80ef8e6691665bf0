"""A request of the Messages API as the chat completions request that a chat user would have written for it.

That it is the very same document matters: its canonical form is the key under which both dialects share an entry of
the cache. Field by field: docs/reference/translation.md.
"""

from collections.abc import Callable
from typing import Any

from watchllm.domain.errors import BadRequest
from watchllm.providers.dialect import TranslatedRequest
from watchllm.providers.translation.messages_conversation import conversation
from watchllm.providers.translation.messages_fields import no_counterpart, objects, only
from watchllm.providers.translation.messages_tools import tool_choice, tools
from watchllm.providers.translation.reading import Loss, count_of, flag_of, number_of, object_of, text_of, wrong


def translate(document: dict[str, Any], *, reasoning_back: bool = False) -> TranslatedRequest:
    """The same question in the chat dialect; `document` is not changed.

    `reasoning_back`: whether the provider takes the reasoning of earlier answers back (`reasoning_content`); those
    that do not know the field refuse it. Raises BadRequest, `param` the dotted field, for what has no counterpart.
    """
    loss = Loss()
    chat: dict[str, Any] = {}
    for field, value in document.items():
        take = _FIELDS.get(field)
        if value is None and field != "messages":
            continue
        if take is None:
            raise no_counterpart(field)
        take(value, chat, loss)
    chat["messages"] = messages = conversation(document, loss, reasoning_back=reasoning_back)
    if messages[-1]["role"] == "assistant":
        raise BadRequest(
            "messages end with the assistant's own words, to be continued; in chat completions, which this model's "
            "provider speaks, an answer always begins anew. End with a user message.",
            param="messages",
        )
    _take_effort(document, chat, loss)
    return TranslatedRequest(chat, loss.dropped, loss.exact)


def response_format(output_config: Any, field: str = "output_config.format") -> dict[str, Any] | None:
    """The chat counterpart of a structured output's format; None = none was asked for. Raises BadRequest."""
    if output_config is None:
        return None
    form = object_of(output_config, field)
    if form.get("type") != "json_schema":
        raise no_counterpart(f"{field}.type")
    only(form, ("type", "schema"), field)
    schema = object_of(form.get("schema"), f"{field}.schema")
    # The Messages API names no schema and always holds the answer to it.
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema, "strict": True}}


_Taker = Callable[[Any, dict[str, Any], Loss], None]

MAX_STOPS = 4
"""Stop sequences that a chat request may name."""

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
# Budgets of thinking tokens below which an effort is the nearest name for them.
_LOW_BUDGET, _MEDIUM_BUDGET = 4096, 16384


def _copied(field: str, check: Callable[[Any, str], Any], name: str | None = None) -> _Taker:
    def take(value: Any, chat: dict[str, Any], loss: Loss) -> None:
        chat[name or field] = check(value, field)

    return take


def _share(value: Any, field: str) -> int | float:
    return number_of(value, field, 0, 1)


def _nothing(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    """Taken elsewhere."""


def _take_stops(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if type(value) is not list:
        raise wrong("stop_sequences", "an array")
    for at, stop in enumerate(value):
        text_of(stop, f"stop_sequences[{at}]")
    if len(value) > MAX_STOPS:
        raise BadRequest(
            f"stop_sequences holds {len(value)} texts; chat completions, which this model's provider speaks, takes at "
            f"most {MAX_STOPS}.",
            param="stop_sequences",
        )
    if value:
        chat["stop"] = list(value)


def _take_metadata(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    for name, member in object_of(value, "metadata").items():
        if name != "user_id":
            loss.drop("metadata")
        elif member is not None:
            chat["user"] = text_of(member, "metadata.user_id")


def _take_service_tier(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    # Which capacity answers is a matter of price and speed. "auto" is the default on both sides.
    tier = text_of(value, "service_tier")
    if tier == "standard_only":
        chat["service_tier"] = "default"
    elif tier != "auto":
        loss.drop("service_tier")


def _take_speed(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if value != "standard":
        raise no_counterpart("speed")


def _take_cache_control(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    loss.drop("cache_control")


def _take_context_management(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    """Chat providers see to earlier thinking themselves, so clearing it is dropped. Other edits change the question."""
    field = "context_management"
    only(object_of(value, field), ("edits",), field)
    for at, edit in enumerate(objects(value.get("edits") or [], f"{field}.edits")):
        if not text_of(edit.get("type"), f"{field}.edits[{at}].type").startswith("clear_thinking_"):
            raise no_counterpart(f"{field}.edits[{at}]")
        loss.drop(field)


def _take_thinking(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    thinking = object_of(value, "thinking")
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive", "disabled"):
        raise no_counterpart("thinking.type")
    only(thinking, ("type", "budget_tokens", "display"), "thinking")
    if thinking.get("display") is not None:
        loss.drop("thinking.display")
    # A budget becomes one of three efforts; that the model decides for itself is a chat model's default. That it is not
    # to think at all cannot be said, and some think where nothing is said.
    loss.exact = False
    if kind == "enabled":
        budget = count_of(thinking.get("budget_tokens"), "thinking.budget_tokens")
        effort = "low" if budget < _LOW_BUDGET else "medium" if budget < _MEDIUM_BUDGET else "high"
        chat["reasoning_effort"] = effort


def _take_output_config(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    only(object_of(value, "output_config"), ("effort", "format"), "output_config")
    form = response_format(value.get("format"))
    if form is not None:
        chat["response_format"] = form


def _take_output_format(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    """The name that `output_config.format` had as a beta."""
    form = response_format(value, "output_format")
    if form is not None:
        chat.setdefault("response_format", form)


def _take_effort(document: dict[str, Any], chat: dict[str, Any], loss: Loss) -> None:
    """An effort that is named counts more than one that was read out of a budget."""
    effort = (document.get("output_config") or {}).get("effort")
    if effort is None:
        return
    if effort not in _EFFORTS:
        raise wrong("output_config.effort", f"one of {', '.join(_EFFORTS)}")
    chat["reasoning_effort"] = effort


def _take_tools(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    taken = tools(value, loss)
    if taken:
        chat["tools"] = taken


def _take_tool_choice(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    chat.update(tool_choice(value))


_FIELDS: dict[str, _Taker] = {
    "model": _copied("model", text_of),
    "messages": _nothing,
    "system": _nothing,
    "max_tokens": _copied("max_tokens", count_of, "max_completion_tokens"),
    "stream": _copied("stream", flag_of),
    "temperature": _copied("temperature", _share),
    "top_p": _copied("top_p", _share),
    "stop_sequences": _take_stops,
    "tools": _take_tools,
    "tool_choice": _take_tool_choice,
    "thinking": _take_thinking,
    "output_config": _take_output_config,
    "output_format": _take_output_format,
    "metadata": _take_metadata,
    "service_tier": _take_service_tier,
    "speed": _take_speed,
    "cache_control": _take_cache_control,
    "context_management": _take_context_management,
}
