"""`/chat/completions` as OpenAI answers it, whole and streamed."""

from typing import Any

import msgspec

from watchllm.sim.answer import Ask, Choice, Tool, ToolCall, decide
from watchllm.sim.citation import CITED_TITLE, CITED_URL
from watchllm.sim.conversation import Conversation, Part, data_of, seed_of, tool_schema
from watchllm.sim.identifiers import call_id
from watchllm.sim.judge import judge
from watchllm.sim.openai_usage import logprob_entries, usage_of
from watchllm.sim.openai_validation import check_chat
from watchllm.sim.reply import Answer, Refused, Reply, Request, StreamReply
from watchllm.sim.schema import UnsupportedSchema
from watchllm.sim.text import count_tokens

DONE = b"data: [DONE]\n\n"
FINGERPRINT = "fp_sim"
_IMAGE_TOKENS = 85
_TOKENS_PER_MESSAGE = 4
_encode = msgspec.json.Encoder().encode


def chat_completion(request: Request) -> Answer:
    """Raises Refused."""
    fields = request.fields
    check_chat(fields)
    ask = _ask(fields, request.name)
    if request.knobs.judge:
        ask = msgspec.structs.replace(ask, text=judge(ask.text, request.labels), echo=True)
    try:
        choices = decide(ask, request.knobs)
    except UnsupportedSchema as error:
        raise Refused(f"Invalid schema: {error}.", param="response_format", code="invalid_json_schema") from None
    usage = usage_of(_prompt_tokens(fields), sum(choice.billed_tokens for choice in choices), request.knobs)
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
        "choices": [
            _whole_choice(index, choice, top, legacy, request.knobs.cite) for index, choice in enumerate(choices)
        ],
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    if not request.knobs.no_usage:
        body["usage"] = usage
    return Reply(_encode(body))


def _ask(fields: dict[str, Any], model: str) -> Ask:
    conversation = _conversation(fields["messages"])
    tools, choice = _tools(fields)
    schema = _schema(fields.get("response_format"))
    seed = seed_of(conversation, model, tools, choice, schema, fields)
    stop = fields.get("stop") or ()
    max_tokens = fields.get("max_completion_tokens")
    forced = "" if choice == "none" else choice
    if choice == "none" or (conversation.answered_call and not forced):
        # The user's "call NAME" has been followed: now comes the answer in words.
        tools = ()
    return Ask(
        seed=seed,
        text=conversation.text,
        tools=tools,
        forced_tool=forced,
        parallel=fields.get("parallel_tool_calls") is not False and "functions" not in fields,
        schema=schema,
        choices=fields.get("n") or 1,
        max_tokens=max_tokens if max_tokens is not None else fields.get("max_tokens"),
        stop=(stop,) if isinstance(stop, str) else tuple(one for one in stop if one),
    )


def _conversation(messages: list[dict[str, Any]]) -> Conversation:
    conversation = Conversation()
    for message in messages:
        role, content = message["role"], message.get("content")
        if role in ("system", "developer"):
            for part in _parts_of(content):
                conversation.instruct(part.value)
        elif role in ("tool", "function"):
            conversation.result(_parts_of(content))
        else:
            name = message.get("name")
            conversation.say(f"{role}:{name}" if name else role, _parts_of(content))
            for call in _calls_of(message):
                conversation.call(str(call.get("name")), str(call.get("arguments", call.get("input", ""))))
    return conversation


def _parts_of(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Part("text", content)]
    return [_part_of(part, part["type"]) for part in content or ()]


def _part_of(part: dict[str, Any], kind: str) -> Part:
    if kind in ("text", "refusal"):
        return Part("text", str(part.get(kind)))
    if kind == "image_url":
        return Part("image", data_of(part["image_url"]["url"]))
    body = part.get(kind)
    body = body if isinstance(body, dict) else {}
    if kind == "input_audio":
        return Part("audio", str(body.get("data", "")))
    return Part("file", data_of(str(body.get("file_data") or body.get("file_id") or "")))


def _calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    calls = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    bodies = [call.get("function") or call.get("custom") for call in calls]
    return [body for body in (*bodies, message.get("function_call")) if isinstance(body, dict)]


def text_of(content: Any) -> str:
    """The text of a message's content, of all its text parts if it has several."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def _tools(fields: dict[str, Any]) -> tuple[tuple[Tool, ...], str]:
    """The tools, and which must be called: "" = as the model likes, "*" = any, "none", or a name."""
    choice: Any
    if fields.get("tools"):
        tools = tuple(
            Tool(
                tool[kind]["name"],
                tool_schema(tool[kind].get("parameters")),
                free=kind == "custom",
                description=str(tool[kind].get("description") or ""),
            )
            for tool in fields["tools"]
            for kind in (tool["type"],)
        )
        choice = fields.get("tool_choice")
    elif isinstance(fields.get("functions"), list):
        tools = tuple(
            Tool(
                str(one.get("name")),
                tool_schema(one.get("parameters")),
                description=str(one.get("description") or ""),
            )
            for one in fields["functions"]
            if isinstance(one, dict)
        )
        choice = fields.get("function_call")
    else:
        return (), ""
    if choice == "none":
        return tools, "none"
    if choice == "required":
        return tools, "*"
    if isinstance(choice, dict):
        kind = choice.get("type")
        body = choice if kind is None else choice.get(kind) if isinstance(kind, str) else None
        body = body if isinstance(body, dict) else {}
        if kind == "allowed_tools":
            return tools, "*" if body.get("mode") == "required" else ""
        name = body.get("name")
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


def _whole_choice(index: int, choice: Choice, top: int | None, legacy: bool, cite: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if cite:
        message["annotations"] = [_citation(choice)]
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


def _citation(choice: Choice) -> dict[str, Any]:
    page = {"start_index": 0, "end_index": len(choice.text), "title": CITED_TITLE, "url": CITED_URL}
    return {"type": "url_citation", "url_citation": page}


def _logprobs(tokens: list[str], refused: bool, top: int | None) -> dict[str, Any] | None:
    if top is None:
        return None
    entries = logprob_entries(tokens, top)
    return {"content": None, "refusal": entries} if refused else {"content": entries, "refusal": None}


def _finish(choice: Choice, legacy: bool) -> str:
    return "function_call" if legacy and choice.finish == "tool_calls" else choice.finish


def _whole_call(call: ToolCall) -> dict[str, Any]:
    if call.free:
        return {"id": call_id("call_"), "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call_id("call_"), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


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
    per_choice = [
        _choice_deltas(index, choice, top, legacy, request.knobs.cite) for index, choice in enumerate(choices)
    ]
    events: list[bytes] = []
    # Alternatives are sampled side by side, so their pieces take turns.
    for position in range(max(map(len, per_choice))):
        events += [prefix + _encode(deltas[position]) + suffix for deltas in per_choice if position < len(deltas)]
    usage_event = prefix + b'],"usage":' + _encode(usage) + b"}\n\n" if include_usage else b""
    return StreamReply(events, usage_event, DONE)


def _choice_deltas(index: int, choice: Choice, top: int | None, legacy: bool, cite: bool) -> list[dict[str, Any]]:
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
        if cite:
            deltas.append(piece({"annotations": [_citation(choice)]}))
    deltas.append(piece({}, finish=_finish(choice, legacy)))
    return deltas


def _call_deltas(position: int, call: ToolCall) -> list[dict[str, Any]]:
    kind, argument = ("custom", "input") if call.free else ("function", "arguments")
    opening = {"index": position, "id": call_id("call_"), "type": kind, kind: {"name": call.name, argument: ""}}
    parts = [{"index": position, kind: {argument: part}} for part in _parts(call.arguments)]
    return [{"tool_calls": [one]} for one in (opening, *parts)]


def _parts(text: str) -> list[str]:
    return [text[at : at + 6] for at in range(0, len(text), 6)]
