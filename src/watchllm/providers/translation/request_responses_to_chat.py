"""A Responses request as a request for chat completions.

The result is the document that a user of chat completions would have written for the same question, because its
canonical form is the cache key that both dialects share. What has no counterpart is refused by name; only what cannot
change the answer, or asks for nothing that a chat could give, is left out and listed.
"""

from collections.abc import Callable
from typing import Any

from watchllm.providers.dialect import TranslatedRequest
from watchllm.providers.translation import responses_input, responses_tools
from watchllm.providers.translation.responses_fields import (
    CHAT_TIERS,
    Losses,
    a_boolean,
    a_list,
    a_number,
    a_text,
    an_integer,
    an_object,
    invalid,
    member,
    no_counterpart,
)


def translate(document: dict[str, Any]) -> TranslatedRequest:
    """About 10 µs for a short request. `document` is not changed.

    Raises BadRequest, naming the field, for what has no counterpart or a wrong type.
    """
    losses = Losses()
    chat: dict[str, Any] = {}
    for field, value in document.items():
        # A null is what the field is when it is left out, also where it has no counterpart otherwise.
        if value is None or field in ("input", "instructions"):
            continue
        take = _FIELDS.get(field)
        if take is None:
            raise no_counterpart(field)
        take(value, chat, losses)
    messages = responses_input.messages(document.get("instructions"), document.get("input"), losses)
    if "tools" not in chat:
        # Chat completions refuse these without tools; Responses take them, and they mean nothing.
        chat.pop("parallel_tool_calls", None)
        if chat.get("tool_choice") in ("auto", "none"):
            del chat["tool_choice"]
    return TranslatedRequest(chat | {"messages": messages}, tuple(losses.dropped), losses.exact)


_Field = Callable[[Any, dict[str, Any], Losses], None]


def _same(field: str, read: Callable[[Any, str], Any], *, name: str = "") -> _Field:
    """A field that has the same meaning in a chat, there called `name`."""

    def take(value: Any, chat: dict[str, Any], losses: Losses) -> None:
        chat[name or field] = read(value, field)

    return take


def _dropped(field: str, read: Callable[[Any, str], Any]) -> _Field:
    """A field that cannot change the answer."""

    def take(value: Any, chat: dict[str, Any], losses: Losses) -> None:
        read(value, field)
        losses.drop(field)

    return take


def _service_tier(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    if a_text(value, "service_tier") in CHAT_TIERS:
        chat["service_tier"] = value
    else:
        losses.drop("service_tier")


def _store(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    if a_boolean(value, "store"):
        raise no_counterpart("store")
    losses.drop("store")


def _background(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    if a_boolean(value, "background"):
        raise no_counterpart("background")


def _truncation(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    if a_text(value, "truncation") != "disabled":
        raise no_counterpart("truncation")
    losses.drop("truncation")


def _cache_options(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    # With `prewarm` nothing is generated at all.
    if an_object(value, "prompt_cache_options").get("prewarm", False) is not False:
        raise no_counterpart("prompt_cache_options.prewarm")
    losses.drop("prompt_cache_options")


def _reasoning(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    fields = ("effort", "summary", "generate_summary", "context", "mode")
    reasoning = an_object(value, "reasoning", fields)
    if "effort" in reasoning:
        chat["reasoning_effort"] = a_text(reasoning["effort"], "reasoning.effort")
    for field in ("summary", "generate_summary"):
        if field in reasoning:
            # Providers of chats tell their models' reasoning or do not, unasked.
            a_text(reasoning[field], f"reasoning.{field}")
            losses.drop(f"reasoning.{field}", shapes_answer=True)
    for field, usual in (("context", "auto"), ("mode", "standard")):
        if reasoning.get(field, usual) != usual:
            raise no_counterpart(f"reasoning.{field}")


def _text(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    text = an_object(value, "text", ("format", "verbosity"))
    if "verbosity" in text:
        chat["verbosity"] = a_text(text["verbosity"], "text.verbosity")
    if "format" not in text:
        return
    path = "text.format"
    written = an_object(text["format"], path, ("type", "name", "description", "schema", "strict"))
    kind = a_text(member(written, "type", path), f"{path}.type")
    if kind == "json_object":
        chat["response_format"] = {"type": kind}
    elif kind == "json_schema":
        schema: dict[str, Any] = {"name": a_text(member(written, "name", path), f"{path}.name")}
        if "description" in written:
            schema["description"] = a_text(written["description"], f"{path}.description")
        an_object(member(written, "schema", path), f"{path}.schema")
        schema["schema"] = written["schema"]
        if "strict" in written:
            schema["strict"] = a_boolean(written["strict"], f"{path}.strict")
        chat["response_format"] = {"type": kind, "json_schema": schema}
    elif kind != "text":
        raise invalid(f"{path}.type", "text, json_schema or json_object")


def _tools(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    translated = responses_tools.tools(value, losses)
    if translated:
        chat["tools"] = translated


def _tool_choice(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    chat["tool_choice"] = responses_tools.tool_choice(value)


def _include(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    for number, item in enumerate(a_list(value, "include")):
        path = f"include[{number}]"
        wanted = a_text(item, path)
        if wanted == "message.output_text.logprobs":
            chat["logprobs"] = True
        elif wanted in _MEANINGLESS_INCLUDES:
            losses.drop(path)
        else:
            raise no_counterpart(path)


# What belongs to tools that run at the provider, to images of the input, or to a provider's sealed reasoning: none of
# it comes up in a chat.
_MEANINGLESS_INCLUDES = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)


def _top_logprobs(value: Any, chat: dict[str, Any], losses: Losses) -> None:
    if an_integer(value, "top_logprobs"):
        chat["logprobs"] = True
        chat["top_logprobs"] = value


_FIELDS: dict[str, _Field] = {
    "model": _same("model", a_text),
    "stream": _same("stream", a_boolean),
    "temperature": _same("temperature", a_number),
    "top_p": _same("top_p", a_number),
    "user": _same("user", a_text),
    "max_output_tokens": _same("max_output_tokens", an_integer, name="max_completion_tokens"),
    "parallel_tool_calls": _same("parallel_tool_calls", a_boolean),
    "service_tier": _service_tier,
    "store": _store,
    "background": _background,
    "truncation": _truncation,
    "prompt_cache_options": _cache_options,
    "reasoning": _reasoning,
    "text": _text,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "include": _include,
    "top_logprobs": _top_logprobs,
    # The answer echoes them; a chat's `metadata` is for stored answers only.
    "metadata": _dropped("metadata", an_object),
    "safety_identifier": _dropped("safety_identifier", a_text),
    "prompt_cache_key": _dropped("prompt_cache_key", a_text),
    "prompt_cache_retention": _dropped("prompt_cache_retention", a_text),
    # Padding of streams, and a bound for tools that run at the provider, of which there are none.
    "stream_options": _dropped("stream_options", an_object),
    "max_tool_calls": _dropped("max_tool_calls", an_integer),
}
