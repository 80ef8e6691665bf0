"""A chat completion request as a request to OpenAI's Responses; all fields are in docs/reference/translation.md.

Answers are never left with the provider (`store: false`): what a chat asks for is not kept there either.
"""

from collections.abc import Callable
from typing import Any

from watchllm.providers.dialect import TranslatedRequest
from watchllm.providers.translation.reading import (
    Loss,
    count_of,
    equal,
    flag_of,
    number_of,
    object_of,
    refusal,
    refuse_others,
    text_of,
    whole_of,
)
from watchllm.providers.translation.responses_fields import CHAT_TIERS
from watchllm.providers.translation.tools_chat_to_responses import translate_choice, translate_tools
from watchllm.providers.translation.turns_chat_to_responses import DIALECT, translate_turns


def translate(document: dict[str, Any]) -> TranslatedRequest:
    """The request that asks the same of a provider of Responses; `document` is not changed.

    Raises BadRequest with the dotted name of a field that has no counterpart or is of a wrong type.
    """
    loss = Loss()
    asked: dict[str, Any] = {}
    for field, value in document.items():
        if value is None or field == "messages":
            continue
        take = _FIELDS.get(field)
        if take is None:
            raise refusal(field, f"has no counterpart in {DIALECT}; leave it out or use a provider that takes it.")
        take(value, asked, loss)
    instructions, items = translate_turns(document.get("messages"), loss)
    if instructions is not None:
        asked["instructions"] = instructions
    asked["input"] = items
    asked["store"] = False
    return TranslatedRequest(asked, loss.dropped, loss.exact)


_Field = Callable[[Any, dict[str, Any], Loss], None]


def _same(field: str, read: Callable[[Any, str], Any]) -> _Field:
    def take(value: Any, asked: dict[str, Any], loss: Loss) -> None:
        asked[field] = read(value, field)

    return take


def _must_be(field: str, meaningless: Any) -> _Field:
    """A field that Responses do not have: it may only say what leaving it out says."""

    def take(value: Any, asked: dict[str, Any], loss: Loss) -> None:
        if not equal(value, meaningless):
            raise refusal(field, f"has no counterpart in {DIALECT}; leave it out or use a provider that takes it.")

    return take


def _dropped(field: str) -> _Field:
    """Bookkeeping and hints that change no answer, and that not every provider of Responses takes."""

    def take(value: Any, asked: dict[str, Any], loss: Loss) -> None:
        if value:
            loss.drop(field)

    return take


def _limit(field: str) -> _Field:
    def take(value: Any, asked: dict[str, Any], loss: Loss) -> None:
        if asked.setdefault("max_output_tokens", count_of(value, field)) != value:
            raise refusal(field, "differs from the other limit of the answer's length; leave one of them out.")

    return take


def _temperature(value: Any, field: str) -> int | float:
    return number_of(value, field, 0, 2)


def _share(value: Any, field: str) -> int | float:
    return number_of(value, field, 0, 1)


def _stop(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    if value != []:
        raise refusal("stop", f"has no counterpart in {DIALECT}; leave it out or use a provider that takes it.")


def _stream_options(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    # Usage is told with every stream, and whoever asked for none is told none by the gateway.
    for name, option in object_of(value, "stream_options").items():
        if name != "include_usage" and option is not None:
            loss.drop(f"stream_options.{name}")


def _service_tier(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    if text_of(value, "service_tier") in CHAT_TIERS:
        asked["service_tier"] = value
    else:
        loss.drop("service_tier")


def _logprobs(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    if flag_of(value, "logprobs"):
        asked["include"] = ["message.output_text.logprobs"]


def _top_logprobs(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    if whole_of(value, "top_logprobs"):
        asked["top_logprobs"] = value


def _reasoning_effort(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    _think(text_of(value, "reasoning_effort"), "reasoning_effort", asked)


def _reasoning(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    """What several vendors have in place of `reasoning_effort`, in the form that Responses have, too."""
    reasoning = object_of(value, "reasoning")
    refuse_others(reasoning, ("effort",), "reasoning", DIALECT)
    if reasoning.get("effort") is not None:
        _think(text_of(reasoning["effort"], "reasoning.effort"), "reasoning.effort", asked)


def _think(effort: str, field: str, asked: dict[str, Any]) -> None:
    if asked.setdefault("reasoning", {"effort": effort}) != {"effort": effort}:
        raise refusal(field, "differs from the other effort that is named; leave one of them out.")


def _verbosity(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    asked.setdefault("text", {})["verbosity"] = text_of(value, "verbosity")


def _response_format(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    kind = object_of(value, "response_format").get("type")
    if kind == "json_schema":
        refuse_others(value, ("type", "json_schema"), "response_format", DIALECT)
        asked.setdefault("text", {})["format"] = _schema_format(value.get("json_schema"))
        return
    refuse_others(value, ("type",), "response_format", DIALECT)
    if kind == "json_object":
        asked.setdefault("text", {})["format"] = {"type": kind}
    elif kind != "text":
        raise refusal("response_format.type", "must be `text`, `json_object` or `json_schema`.")


def _schema_format(given: Any) -> dict[str, Any]:
    where = "response_format.json_schema"
    described = object_of(given, where)
    refuse_others(described, ("name", "description", "schema", "strict"), where, DIALECT)
    written: dict[str, Any] = {"type": "json_schema", "name": text_of(described.get("name"), f"{where}.name")}
    if described.get("description") is not None:
        written["description"] = text_of(described["description"], f"{where}.description")
    written["schema"] = object_of(described.get("schema"), f"{where}.schema")
    if described.get("strict") is not None:
        written["strict"] = flag_of(described["strict"], f"{where}.strict")
    return written


def _tools(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    tools = translate_tools(value, loss)
    if tools:
        asked["tools"] = tools


def _tool_choice(value: Any, asked: dict[str, Any], loss: Loss) -> None:
    asked["tool_choice"] = translate_choice(value)


_FIELDS: dict[str, _Field] = {
    "model": _same("model", text_of),
    "stream": _same("stream", flag_of),
    "temperature": _same("temperature", _temperature),
    "top_p": _same("top_p", _share),
    "user": _same("user", text_of),
    "parallel_tool_calls": _same("parallel_tool_calls", flag_of),
    "max_completion_tokens": _limit("max_completion_tokens"),
    "max_tokens": _limit("max_tokens"),
    "stop": _stop,
    "stream_options": _stream_options,
    "service_tier": _service_tier,
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
    "reasoning_effort": _reasoning_effort,
    "reasoning": _reasoning,
    "verbosity": _verbosity,
    "response_format": _response_format,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "n": _must_be("n", 1),
    "presence_penalty": _must_be("presence_penalty", 0),
    "frequency_penalty": _must_be("frequency_penalty", 0),
    "logit_bias": _must_be("logit_bias", {}),
    "modalities": _must_be("modalities", ["text"]),
    "functions": _must_be("functions", []),
    "store": _must_be("store", False),
    "metadata": _dropped("metadata"),
    "safety_identifier": _dropped("safety_identifier"),
    "prompt_cache_key": _dropped("prompt_cache_key"),
    "prompt_cache_options": _dropped("prompt_cache_options"),
    "prompt_cache_retention": _dropped("prompt_cache_retention"),
}
