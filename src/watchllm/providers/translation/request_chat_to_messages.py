"""A chat completion request as a request to Anthropic's messages; all fields are in docs/reference/translation.md."""

from typing import Any

from watchllm.providers.anthropic.models import thinking_style
from watchllm.providers.dialect import TranslatedRequest
from watchllm.providers.translation.media_chat_to_messages import DIALECT, cache_hint
from watchllm.providers.translation.reading import (
    Loss,
    count_of,
    equal,
    flag_of,
    list_of,
    object_of,
    refusal,
    refuse_others,
    text_of,
)
from watchllm.providers.translation.turns_chat_to_messages import translate_turns


def translate(document: dict[str, Any], *, max_tokens: int) -> TranslatedRequest:
    """The request that asks the same of Anthropic; `document` is not changed.

    `max_tokens` is sent where the client names none, for Anthropic wants it named. Raises BadRequest with the dotted
    name of a field that has no counterpart or is of a wrong type.
    """
    loss = Loss()
    _refuse_untranslatable(document, loss)
    model = text_of(document.get("model"), "model")
    limit = _limit(document) or max_tokens
    system, turns = translate_turns(document.get("messages"), loss)
    asked: dict[str, Any] = {"model": model, "max_tokens": limit, "messages": turns}
    if system is not None:
        asked["system"] = system
    if document.get("stream") is not None:
        asked["stream"] = flag_of(document["stream"], "stream")
    asked |= _sampling(document)
    asked |= _tools(document, loss)
    output = _output_format(document.get("response_format"), loss)
    thinking, effort = _thinking(document, model, limit, loss)
    if output | effort:
        asked["output_config"] = output | effort
    asked |= thinking
    asked |= _beside(document, loss)
    return TranslatedRequest(asked, loss.dropped, loss.exact)


# Fields that are left out where they have the value that means nothing, and refused where they have another. Numbers
# are compared as numbers, so a list is not among the values of any.
_MUST_BE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "store": (False,),
    "functions": ([],),
}
# Bookkeeping and hints that change no answer.
_DROPPED = (
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)
_TRANSLATED = frozenset(
    (
        *("model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "temperature"),
        *("top_p", "top_k", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("reasoning_effort", "reasoning", "thinking", "user", "service_tier", *_MUST_BE, *_DROPPED),
    )
)


def _refuse_untranslatable(document: dict[str, Any], loss: Loss) -> None:
    refuse_others(document, _TRANSLATED, "", DIALECT)
    for field, meaningless in _MUST_BE.items():
        value = document.get(field)
        if value is not None and not any(equal(value, other) for other in meaningless):
            raise refusal(field, f"has no counterpart in {DIALECT}; leave it out or use a provider that takes it.")
    for field in _DROPPED:
        if document.get(field):
            loss.drop(field)


def _limit(document: dict[str, Any]) -> int | None:
    fields = [field for field in ("max_completion_tokens", "max_tokens") if document.get(field) is not None]
    limits = {count_of(document[field], field) for field in fields}
    if len(limits) > 1:
        raise refusal("max_tokens", "differs from `max_completion_tokens`; leave one of them out.")
    return limits.pop() if limits else None


def _sampling(document: dict[str, Any]) -> dict[str, Any]:
    sampling: dict[str, Any] = {}
    for field in ("temperature", "top_p"):
        value = document.get(field)
        if value is None:
            continue
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise refusal(field, f"must be a number from 0 to 1: {DIALECT} take no other.")
        # 1 is what leaving it out means, and newer models take no other way to say so.
        if value != 1:
            sampling[field] = value
    if document.get("top_k") is not None:
        sampling["top_k"] = count_of(document["top_k"], "top_k")
    stop = document.get("stop")
    if stop is not None:
        stops = [stop] if type(stop) is str else list_of(stop, "stop")
        sampling["stop_sequences"] = [text_of(one, f"stop[{number}]") for number, one in enumerate(stops)]
        if not stops:
            del sampling["stop_sequences"]
    return sampling


def _tools(document: dict[str, Any], loss: Loss) -> dict[str, Any]:
    given = document.get("tools")
    tools = [] if given is None else list_of(given, "tools")
    choice = _tool_choice(document.get("tool_choice"))
    parallel = document.get("parallel_tool_calls")
    alone = parallel is not None and not flag_of(parallel, "parallel_tool_calls")
    if not tools:
        if choice is not None and choice["type"] not in ("auto", "none"):
            raise refusal("tool_choice", "needs `tools` to choose from.")
        return {}
    asked: dict[str, Any] = {"tools": [_tool(tool, f"tools[{number}]", loss) for number, tool in enumerate(tools)]}
    if alone and (choice is None or choice["type"] != "none"):
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    if choice is not None:
        asked["tool_choice"] = choice
    return asked


def _tool(tool: Any, where: str, loss: Loss) -> dict[str, Any]:
    if object_of(tool, where).get("type") != "function":
        raise refusal(where, f"has no counterpart in {DIALECT}: only tools of type `function` have one.")
    refuse_others(tool, ("type", "function", "cache_control", "prompt_cache_breakpoint"), where, DIALECT)
    function = object_of(tool.get("function"), f"{where}.function")
    where = f"{where}.function"
    refuse_others(function, ("name", "description", "parameters", "strict"), where, DIALECT)
    translated: dict[str, Any] = {"name": text_of(function.get("name"), f"{where}.name")}
    if function.get("description") is not None:
        translated["description"] = text_of(function["description"], f"{where}.description")
    schema = function.get("parameters")
    schema = {} if schema is None else object_of(schema, f"{where}.parameters")
    translated["input_schema"] = schema or {"type": "object", "properties": {}}
    if flag_of(function.get("strict"), f"{where}.strict"):
        translated["strict"] = True
    return translated | cache_hint(tool, where.removesuffix(".function"), loss)


_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def _tool_choice(choice: Any) -> dict[str, Any] | None:
    if choice is None:
        return None
    if type(choice) is str and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if type(choice) is not dict or choice.get("type") != "function":
        raise refusal("tool_choice", "must be `auto`, `none`, `required`, or name a function.")
    refuse_others(choice, ("type", "function"), "tool_choice", DIALECT)
    function = object_of(choice.get("function"), "tool_choice.function")
    refuse_others(function, ("name",), "tool_choice.function", DIALECT)
    return {"type": "tool", "name": text_of(function.get("name"), "tool_choice.function.name")}


def _output_format(given: Any, loss: Loss) -> dict[str, Any]:
    if given is None:
        return {}
    kind = object_of(given, "response_format").get("type")
    if kind == "text":
        refuse_others(given, ("type",), "response_format", DIALECT)
        return {}
    if kind != "json_schema":
        raise refusal(
            "response_format.type", "must be `text` or `json_schema`: Anthropic takes JSON only with a schema."
        )
    where = "response_format.json_schema"
    refuse_others(given, ("type", "json_schema"), "response_format", DIALECT)
    described = object_of(given.get("json_schema"), where)
    refuse_others(described, ("name", "description", "schema", "strict"), where, DIALECT)
    text_of(described.get("name"), f"{where}.name")
    # Anthropic has no word for what a format is for, and always keeps to the schema.
    if described.get("description") is not None or not flag_of(described.get("strict"), f"{where}.strict"):
        loss.blur()
    return {"format": {"type": "json_schema", "schema": object_of(described.get("schema"), f"{where}.schema")}}


_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 49_152}
_MIN_BUDGET = 1024


def _thinking(document: dict[str, Any], model: str, limit: int, loss: Loss) -> tuple[dict[str, Any], dict[str, Any]]:
    """`thinking`, and what goes into `output_config`."""
    field, effort, budget = _asked_effort(document)
    own = document.get("thinking")
    if own is not None:
        # Anthropic's own field, which its users send along with chat requests.
        if field:
            raise refusal("thinking", f"says the same as `{field}`; leave one of them out.")
        return {"thinking": object_of(own, "thinking")}, {}
    if effort is None and budget is None:
        return {}, {}
    style = thinking_style(model)
    if style == "adaptive":
        if effort is None:
            raise refusal(field, "has no counterpart for this model; name an effort instead.")
        if effort == "none":
            return {"thinking": {"type": "disabled"}}, {}
        if effort == "minimal":
            loss.blur()
        # Newer models tell their thoughts only when asked to.
        return {"thinking": {"type": "adaptive", "display": "summarized"}}, {"effort": _EFFORTS[effort]}
    if effort == "none":
        return {}, {}
    if style == "none":
        raise refusal(field, "is not for this model: it does not reason.")
    if limit <= _MIN_BUDGET:
        raise refusal(field, f"needs room: set `max_completion_tokens` above {_MIN_BUDGET} or leave it out.")
    if budget is None:
        assert effort is not None
        budget = _BUDGETS[effort]
        loss.blur()
    # The budget is part of the limit, and something must be left for the answer.
    within = min(budget, max(_MIN_BUDGET, limit * 4 // 5))
    if within < budget:
        loss.blur()
    return {"thinking": {"type": "enabled", "budget_tokens": within}}, {}


def _asked_effort(document: dict[str, Any]) -> tuple[str, str | None, int | None]:
    """The field that asks for reasoning (empty: none does), and the effort or the tokens that it asks for."""
    effort = document.get("reasoning_effort")
    given = document.get("reasoning")
    if given is None:
        return ("", None, None) if effort is None else ("reasoning_effort", _effort(effort, "reasoning_effort"), None)
    if effort is not None:
        raise refusal("reasoning", "says the same as `reasoning_effort`; leave one of them out.")
    reasoning = object_of(given, "reasoning")
    refuse_others(reasoning, ("effort", "max_tokens", "enabled", "exclude"), "reasoning", DIALECT)
    if flag_of(reasoning.get("exclude"), "reasoning.exclude"):
        raise refusal("reasoning.exclude", f"has no counterpart in {DIALECT}.")
    enabled = reasoning.get("enabled")
    if enabled is not None and not flag_of(enabled, "reasoning.enabled"):
        return "reasoning.enabled", "none", None
    if reasoning.get("effort") is not None:
        if reasoning.get("max_tokens") is not None:
            raise refusal("reasoning.max_tokens", "says the same as `reasoning.effort`; leave one of them out.")
        return "reasoning.effort", _effort(reasoning["effort"], "reasoning.effort"), None
    if reasoning.get("max_tokens") is not None:
        budget = count_of(reasoning["max_tokens"], "reasoning.max_tokens")
        if budget < _MIN_BUDGET:
            raise refusal("reasoning.max_tokens", f"must be at least {_MIN_BUDGET}.")
        return "reasoning.max_tokens", None, budget
    return ("reasoning.enabled", "medium", None) if enabled else ("", None, None)


def _effort(value: Any, field: str) -> str:
    if value == "none" or (type(value) is str and value in _EFFORTS):
        return str(value)
    raise refusal(field, f"must be `none`, {', '.join(f'`{name}`' for name in _EFFORTS)}.")


# Others are OpenAI's own (`flex`, `priority`, …).
_TIERS = {"auto": "auto", "default": "standard_only"}


def _beside(document: dict[str, Any], loss: Loss) -> dict[str, Any]:
    """What changes no answer but has a counterpart."""
    beside: dict[str, Any] = {}
    if document.get("user") is not None:
        beside["metadata"] = {"user_id": text_of(document["user"], "user")}
    tier = document.get("service_tier")
    if tier is not None:
        if text_of(tier, "service_tier") in _TIERS:
            beside["service_tier"] = _TIERS[tier]
        else:
            loss.drop("service_tier")
    options = document.get("stream_options")
    if options is not None:
        # Usage is told with every stream, and whoever asked for none is told none by the gateway.
        for name, value in object_of(options, "stream_options").items():
            if name != "include_usage" and value is not None:
                loss.drop(f"stream_options.{name}"[:120])
    return beside
