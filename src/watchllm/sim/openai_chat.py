"""`/chat/completions` as OpenAI answers it, whole and streamed."""

import random
import string
from typing import Any

import msgspec

from watchllm.sim.answer import Ask, Choice, Tool, ToolCall, decide
from watchllm.sim.openai_usage import choice_tokens, logprob_entries, usage_of
from watchllm.sim.openai_validation import check_chat
from watchllm.sim.reply import Answer, Refused, Reply, Request, StreamReply
from watchllm.sim.schema import UnsupportedSchema
from watchllm.sim.text import count_tokens, digest

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "fp_sim"
_IMAGE_TOKENS = 85
_TOKENS_PER_MESSAGE = 4
_encode = msgspec.json.Encoder().encode
# What does not change the words: how they are delivered, bounded or attributed.
_SEED_IGNORES = frozenset(
    {
        "model", "stream", "stream_options", "user", "metadata", "store", "n", "max_tokens", "max_completion_tokens",
        "stop", "logprobs", "top_logprobs", "safety_identifier", "prompt_cache_key", "service_tier",
    }
)  # fmt: skip
_ID_ALPHABET = string.ascii_letters + string.digits
_random = random.Random()


def chat_completion(request: Request) -> Answer:
    """Raises Refused."""
    fields = request.fields
    check_chat(fields)
    ask = _ask(fields)
    try:
        choices = decide(ask, request.knobs)
    except UnsupportedSchema as error:
        raise Refused(f"Invalid schema: {error}.", param="response_format", code="invalid_json_schema") from None
    usage = usage_of(_prompt_tokens(fields), sum(map(choice_tokens, choices)), request.knobs)
    top = fields.get("top_logprobs") or 0 if fields.get("logprobs") else None
    completion_id = f"chatcmpl-{request.run}{request.number:08d}"
    legacy = "functions" in fields and "tools" not in fields
    if fields.get("stream"):
        return _stream(request, completion_id, choices, usage, top, legacy)
    body = {
        "id": completion_id,
        "object": "chat.completion",
        "created": request.created,
        "model": fields["model"],
        "choices": [_whole_choice(index, choice, top, legacy) for index, choice in enumerate(choices)],
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    if not request.knobs.no_usage:
        body["usage"] = usage
    return Reply(_encode(body))


def _ask(fields: dict[str, Any]) -> Ask:
    messages = fields["messages"]
    last = messages[-1]
    text = next((text_of(message.get("content")) for message in reversed(messages) if message["role"] == "user"), "")
    seed = digest(_encode({name: value for name, value in fields.items() if name not in _SEED_IGNORES}))
    stop = fields.get("stop") or ()
    max_tokens = fields.get("max_completion_tokens")
    tools, forced = _tools(fields)
    if last["role"] in ("tool", "function") and not forced:
        # The user's "call NAME" has been followed: now comes the answer in words.
        tools = ()
    return Ask(
        seed=seed,
        text=text,
        tools=tools,
        forced_tool=forced,
        parallel=fields.get("parallel_tool_calls") is not False and "functions" not in fields,
        schema=_schema(fields.get("response_format")),
        choices=fields.get("n") or 1,
        max_tokens=max_tokens if max_tokens is not None else fields.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(one for one in stop if one),
    )


def text_of(content: Any) -> str:
    """The text of a message's content, of all its text parts if it has several."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def _tools(fields: dict[str, Any]) -> tuple[tuple[Tool, ...], str]:
    choice: Any
    if fields.get("tools"):
        tools = tuple(
            Tool(tool[kind]["name"], tool[kind].get("parameters"), free=kind == "custom")
            for tool in fields["tools"]
            for kind in (tool["type"],)
        )
        choice = fields.get("tool_choice")
    elif isinstance(fields.get("functions"), list):
        tools = tuple(
            Tool(str(one.get("name")), one.get("parameters")) for one in fields["functions"] if isinstance(one, dict)
        )
        choice = fields.get("function_call")
    else:
        return (), ""
    if choice == "none":
        return (), ""
    if choice == "required":
        return tools, "*"
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind == "allowed_tools":
            return tools, "*" if choice.get("allowed_tools", {}).get("mode") == "required" else ""
        name = choice.get("name") if kind is None else choice.get(kind, {}).get("name")
        if not any(tool.name == name for tool in tools):
            raise Refused(
                f"Invalid value: tool_choice names {name!r}, which is not among the tools.",
                param="tool_choice",
                code="invalid_value",
            )
        return tools, str(name)
    return tools, ""


def _schema(response_format: Any) -> Any:
    if not response_format or response_format["type"] == "text":
        return None
    if response_format["type"] == "json_object":
        return True
    return response_format["json_schema"].get("schema", {})


def _prompt_tokens(fields: dict[str, Any]) -> int:
    total = 3
    for message in fields["messages"]:
        content = message.get("content")
        total += _TOKENS_PER_MESSAGE + count_tokens(text_of(content))
        if isinstance(content, list):
            total += sum(_IMAGE_TOKENS for part in content if part["type"] != "text")
        if message.get("tool_calls"):
            total += count_tokens(_encode(message["tool_calls"]).decode())
    for name in ("tools", "functions", "response_format"):
        if fields.get(name):
            total += count_tokens(_encode(fields[name]).decode())
    return total


def _whole_choice(index: int, choice: Choice, top: int | None, legacy: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if choice.refused:
        message["content"], message["refusal"] = None, choice.text
    if choice.calls:
        message["content"] = None
        if legacy:
            call = choice.calls[0]
            message["function_call"] = {"name": call.name, "arguments": call.arguments}
        else:
            message["tool_calls"] = [_whole_call(call) for call in choice.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(choice.tokens, choice.refused, top),
        "finish_reason": _finish(choice, legacy),
    }


def _logprobs(tokens: list[str], refused: bool, top: int | None) -> dict[str, Any] | None:
    if top is None:
        return None
    entries = logprob_entries(tokens, top)
    return {"content": None, "refusal": entries} if refused else {"content": entries, "refusal": None}


def _finish(choice: Choice, legacy: bool) -> str:
    return "function_call" if legacy and choice.finish == "tool_calls" else choice.finish


def _whole_call(call: ToolCall) -> dict[str, Any]:
    if call.free:
        return {"id": _call_id(), "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": _call_id(), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_id() -> str:
    return "call_" + "".join(_random.choices(_ID_ALPHABET, k=24))


def _stream(
    request: Request, completion_id: str, choices: list[Choice], usage: dict[str, Any], top: int | None, legacy: bool
) -> StreamReply:
    fields = request.fields
    include_usage = bool((fields.get("stream_options") or {}).get("include_usage")) and not request.knobs.no_usage
    envelope = {
        "id": completion_id,
        "object": "chat.completion.chunk",
        "created": request.created,
        "model": fields["model"],
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    prefix = b"data: " + _encode(envelope)[:-1] + b',"choices":['
    suffix = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
    per_choice = [_choice_deltas(index, choice, top, legacy) for index, choice in enumerate(choices)]
    events: list[bytes] = []
    # Alternatives are sampled side by side, so their pieces take turns.
    for position in range(max(map(len, per_choice))):
        events += [prefix + _encode(deltas[position]) + suffix for deltas in per_choice if position < len(deltas)]
    usage_event = prefix + b'],"usage":' + _encode(usage) + b"}\n\n" if include_usage else b""
    return StreamReply(events, usage_event, DONE)


def _choice_deltas(index: int, choice: Choice, top: int | None, legacy: bool) -> list[dict[str, Any]]:
    def piece(delta: dict[str, Any], tokens: list[str] | None = None, finish: str | None = None) -> dict[str, Any]:
        logprobs = _logprobs(tokens, choice.refused, top) if tokens is not None else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    deltas: list[dict[str, Any]] = []
    if choice.calls and legacy:
        call = choice.calls[0]
        opening = {"role": "assistant", "content": None, "function_call": {"name": call.name, "arguments": ""}}
        deltas.append(piece(opening))
        deltas += [piece({"function_call": {"arguments": part}}) for part in _parts(call.arguments)]
    elif choice.calls:
        for position, call in enumerate(choice.calls):
            deltas += [piece(delta) for delta in _call_deltas(position, call)]
        deltas[0]["delta"] = {"role": "assistant", "content": None, **deltas[0]["delta"], "refusal": None}
    else:
        name = "refusal" if choice.refused else "content"
        opening = {"role": "assistant", "content": None} if choice.refused else {"role": "assistant", "content": ""}
        deltas.append(piece({**opening, "refusal": None}))
        deltas += [piece({name: token}, [token]) for token in choice.tokens]
    deltas.append(piece({}, finish=_finish(choice, legacy)))
    return deltas


def _call_deltas(position: int, call: ToolCall) -> list[dict[str, Any]]:
    kind, argument = ("custom", "input") if call.free else ("function", "arguments")
    opening = {"index": position, "id": _call_id(), "type": kind, kind: {"name": call.name, argument: ""}}
    parts = [{"index": position, kind: {argument: part}} for part in _parts(call.arguments)]
    return [{"tool_calls": [one]} for one in (opening, *parts)]


def _parts(text: str) -> list[str]:
    return [text[at : at + 6] for at in range(0, len(text), 6)]
