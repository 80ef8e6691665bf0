"""A Responses request as a request for chat completions.

The result is the document that a user of chat completions would have written for the same question, because its
canonical form is the cache key that both dialects share. What has no counterpart is refused by name; only what cannot
change the answer, or asks for nothing that a chat could give, is left out and listed.
"""

from collections.abc import Callable
from typing import Any

from watchllm.providers.dialect import TranslatedRequest
from watchllm.providers.translation import responses_input, responses_tools
from watchllm.providers.translation.reading import Loss, flag_of, list_of, text_of, wrong
from watchllm.providers.translation.responses_fields import (
    CHAT_TIERS,
    a_number,
    an_integer,
    an_object,
    member,
    no_counterpart,
)


def translate(document: dict[str, Any]) -> TranslatedRequest:
    """About 10 µs for a short request. `document` is not changed.

    Raises BadRequest, naming the field, for what has no counterpart or a wrong type.
    """
    loss = Loss()
    chat: dict[str, Any] = {}
    for field, value in document.items():
        # A null is what the field is when it is left out, also where it has no counterpart otherwise.
        if value is None or field in ("input", "instructions"):
            continue
        take = _FIELDS.get(field)
        if take is None:
            raise no_counterpart(field)
        take(value, chat, loss)
    messages = responses_input.messages(document.get("instructions"), document.get("input"), loss)
    if "tools" not in chat:
        # Chat completions refuse these without tools; Responses take them, and they mean nothing.
        chat.pop("parallel_tool_calls", None)
        if chat.get("tool_choice") in ("auto", "none"):
            del chat["tool_choice"]
    return TranslatedRequest(chat | {"messages": messages}, loss.dropped, loss.exact)


_Field = Callable[[Any, dict[str, Any], Loss], None]


def _same(field: str, read: Callable[[Any, str], Any], *, name: str = "") -> _Field:
    """A field that has the same meaning in a chat, there called `name`."""

    def take(value: Any, chat: dict[str, Any], loss: Loss) -> None:
        chat[name or field] = read(value, field)

    return take


def _dropped(field: str, read: Callable[[Any, str], Any]) -> _Field:
    """A field that cannot change the answer."""

    def take(value: Any, chat: dict[str, Any], loss: Loss) -> None:
        read(value, field)
        loss.drop(field)

    return take


def _service_tier(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if text_of(value, "service_tier") in CHAT_TIERS:
        chat["service_tier"] = value
    else:
        loss.drop("service_tier")


def _store(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if flag_of(value, "store"):
        raise no_counterpart("store")
    loss.drop("store")


def _background(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if flag_of(value, "background"):
        raise no_counterpart("background")


def _truncation(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if text_of(value, "truncation") != "disabled":
        raise no_counterpart("truncation")
    loss.drop("truncation")


def _cache_options(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    # With `prewarm` nothing is generated at all.
    if an_object(value, "prompt_cache_options").get("prewarm", False) is not False:
        raise no_counterpart("prompt_cache_options.prewarm")
    loss.drop("prompt_cache_options")


def _reasoning(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    fields = ("effort", "summary", "generate_summary", "context", "mode")
    reasoning = an_object(value, "reasoning", fields)
    if "effort" in reasoning:
        chat["reasoning_effort"] = text_of(reasoning["effort"], "reasoning.effort")
    for field in ("summary", "generate_summary"):
        if field in reasoning:
            # Providers of chats tell their models' reasoning or do not, unasked.
            text_of(reasoning[field], f"reasoning.{field}")
            loss.drop(f"reasoning.{field}", shapes_answer=True)
    for field, usual in (("context", "auto"), ("mode", "standard")):
        if reasoning.get(field, usual) != usual:
            raise no_counterpart(f"reasoning.{field}")


def _text(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    text = an_object(value, "text", ("format", "verbosity"))
    if "verbosity" in text:
        chat["verbosity"] = text_of(text["verbosity"], "text.verbosity")
    if "format" not in text:
        return
    path = "text.format"
    written = an_object(text["format"], path, ("type", "name", "description", "schema", "strict"))
    kind = text_of(member(written, "type", path), f"{path}.type")
    if kind == "json_object":
        chat["response_format"] = {"type": kind}
    elif kind == "json_schema":
        schema: dict[str, Any] = {"name": text_of(member(written, "name", path), f"{path}.name")}
        if "description" in written:
            schema["description"] = text_of(written["description"], f"{path}.description")
        an_object(member(written, "schema", path), f"{path}.schema")
        schema["schema"] = written["schema"]
        if "strict" in written:
            schema["strict"] = flag_of(written["strict"], f"{path}.strict")
        chat["response_format"] = {"type": kind, "json_schema": schema}
    elif kind != "text":
        raise wrong(f"{path}.type", "text, json_schema or json_object")


def _tools(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    translated = responses_tools.tools(value, loss)
    if translated:
        chat["tools"] = translated


def _tool_choice(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    chat["tool_choice"] = responses_tools.tool_choice(value)


def _include(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    for number, item in enumerate(list_of(value, "include")):
        path = f"include[{number}]"
        wanted = text_of(item, path)
        if wanted == "message.output_text.logprobs":
            chat["logprobs"] = True
        elif wanted == _SEALED_REASONING:
            # A chat has none, but an answer that has it and one that lacks it may not stand for each other.
            loss.drop(path, shapes_answer=True)
        elif wanted in _MEANINGLESS_INCLUDES:
            loss.drop(path)
        else:
            raise no_counterpart(path)


_SEALED_REASONING = "reasoning.encrypted_content"
# What belongs to tools that run at the provider, or to images of the input: none of it comes up in a chat.
_MEANINGLESS_INCLUDES = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)


def _top_logprobs(value: Any, chat: dict[str, Any], loss: Loss) -> None:
    if an_integer(value, "top_logprobs"):
        chat["logprobs"] = True
        chat["top_logprobs"] = value


_FIELDS: dict[str, _Field] = {
    "model": _same("model", text_of),
    "stream": _same("stream", flag_of),
    "temperature": _same("temperature", a_number),
    "top_p": _same("top_p", a_number),
    "user": _same("user", text_of),
    "max_output_tokens": _same("max_output_tokens", an_integer, name="max_completion_tokens"),
    "parallel_tool_calls": _same("parallel_tool_calls", flag_of),
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
    "safety_identifier": _dropped("safety_identifier", text_of),
    "prompt_cache_key": _dropped("prompt_cache_key", text_of),
    "prompt_cache_retention": _dropped("prompt_cache_retention", text_of),
    # Padding of streams, and a bound for tools that run at the provider, of which there are none.
    "stream_options": _dropped("stream_options", an_object),
    "max_tool_calls": _dropped("max_tool_calls", an_integer),
}
