"""`/messages` and `/messages/count_tokens` as Anthropic answers them, whole and streamed."""

import base64
from typing import Any, NamedTuple

import msgspec

from watchllm.sim.answer import Ask, Choice, decide, think
from watchllm.sim.anthropic_ask import ask_of
from watchllm.sim.anthropic_cache import PromptCache, input_tokens
from watchllm.sim.anthropic_citations import citations_of
from watchllm.sim.anthropic_validation import check_count, check_messages
from watchllm.sim.identifiers import call_id
from watchllm.sim.reply import Answer, Refused, Reply, Request, StreamReply
from watchllm.sim.schema import UnsupportedSchema
from watchllm.sim.text import digest

_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_STOP_EVENT = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_THINKING_TYPES = ("enabled", "adaptive")
_PART_CHARACTERS = 6
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Block(NamedTuple):
    """A block of an answer's content: whole, and as a stream opens and continues it."""

    whole: dict[str, Any]
    opening: dict[str, Any]
    deltas: list[dict[str, Any]]


class Messages:
    """The Messages API over the prompts whose beginnings it has seen."""

    def __init__(self, prompts: PromptCache) -> None:
        self._prompts = prompts

    def create(self, request: Request) -> Answer:
        """Raises Refused."""
        fields, knobs = request.fields, request.knobs
        check_messages(fields, request.headers)
        ask = ask_of(fields, request.name)
        try:
            choice = decide(ask, knobs)[0]
        except UnsupportedSchema as error:
            raise Refused(f"output_config.format.schema: Invalid schema: {error}.") from None
        thoughts = think(ask, knobs) if _thinks(fields) else []
        blocks = _blocks(choice, ask, thoughts, request)
        output_tokens = choice.billed_tokens + len(thoughts)
        usage = {
            **self._prompts.usage(fields, knobs),
            "output_tokens": output_tokens,
            "output_tokens_details": {"thinking_tokens": len(thoughts)},
            "service_tier": "standard",
        }
        message = {
            "id": f"msg_{request.run}{request.number:08d}",
            "type": "message",
            "role": "assistant",
            "model": fields["model"],
            "content": [block.whole for block in blocks],
            **_stop(choice),
            "usage": usage,
        }
        if fields.get("stream"):
            return _stream(message, blocks, with_usage=not knobs.no_usage)
        if knobs.no_usage:
            del message["usage"]
        return Reply(_encode(message))

    def count_tokens(self, request: Request) -> Answer:
        """Raises Refused."""
        check_count(request.fields, request.headers)
        return Reply(_encode({"input_tokens": input_tokens(request.fields)}))


def _thinks(fields: dict[str, Any]) -> bool:
    thinking = fields.get("thinking") or {}
    return thinking.get("type") in _THINKING_TYPES


def _stop(choice: Choice) -> dict[str, Any]:
    if choice.refused or choice.finish == "content_filter":
        details = {"type": "refusal", "category": None, "explanation": None}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    if choice.calls:
        reason = "tool_use"
    elif choice.finish == "length":
        reason = "max_tokens"
    else:
        reason = "stop_sequence" if choice.stopped_by else "end_turn"
    return {"stop_reason": reason, "stop_sequence": choice.stopped_by or None, "stop_details": None}


def _blocks(choice: Choice, ask: Ask, thoughts: list[str], request: Request) -> list[Block]:
    blocks: list[Block] = []
    if thoughts:
        blocks.append(_thinking(ask, thoughts, request))
    if choice.calls:
        return blocks + [_tool_use(call.name, call.arguments) for call in choice.calls]
    citations = [] if choice.refused else citations_of(request.fields, request.knobs)
    tokens = choice.tokens
    if citations:
        # What comes first is the model's own; the rest rests on the documents.
        middle = len(tokens) // 2
        blocks += [_text(tokens[:middle], []), _text(tokens[middle:], citations)]
    elif tokens or not blocks:
        blocks.append(_text(tokens, []))
    return [block for block in blocks if block.whole.get("text") != ""]


def _thinking(ask: Ask, thoughts: list[str], request: Request) -> Block:
    signature = base64.b64encode(digest(ask.seed, b"signature") * 2).decode()
    if request.knobs.redacted:
        whole = {"type": "redacted_thinking", "data": signature}
        return Block(whole, whole, [])
    if request.fields["thinking"].get("display") == "omitted":
        thoughts = []
    whole = {"type": "thinking", "thinking": "".join(thoughts), "signature": signature}
    deltas = [{"type": "thinking_delta", "thinking": token} for token in thoughts]
    return Block(
        whole,
        {"type": "thinking", "thinking": "", "signature": ""},
        [*deltas, {"type": "signature_delta", "signature": signature}],
    )


def _text(tokens: list[str], citations: list[dict[str, Any]]) -> Block:
    marked: dict[str, Any] = {"citations": citations} if citations else {}
    empty: dict[str, Any] = {"citations": []} if citations else {}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": token} for token in tokens]
    deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
    return Block({"type": "text", "text": "".join(tokens), **marked}, {"type": "text", "text": "", **empty}, deltas)


def _tool_use(name: str, arguments: str) -> Block:
    whole = {"type": "tool_use", "id": call_id("toolu_"), "name": name, "input": _decode(arguments)}
    parts = ["", *(arguments[at : at + _PART_CHARACTERS] for at in range(0, len(arguments), _PART_CHARACTERS))]
    return Block(whole, {**whole, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts])


def _stream(message: dict[str, Any], blocks: list[Block], *, with_usage: bool) -> StreamReply:
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    begun["usage"] = {**usage, "output_tokens": 1}
    del begun["usage"]["output_tokens_details"]
    stop = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    end: dict[str, Any] = {"delta": stop}
    if with_usage:
        # Cumulative; what does not change between start and end is told only at the start.
        end["usage"] = {name: usage[name] for name in usage if name not in ("cache_creation", "service_tier")}
    else:
        del begun["usage"]
    events = [_event("message_start", {"message": begun})]
    for index, block in enumerate(blocks):
        events.append(_event("content_block_start", {"index": index, "content_block": block.opening}))
        if index == 0:
            events.append(_PING)
        events += [_event("content_block_delta", {"index": index, "delta": delta}) for delta in block.deltas]
        events.append(_event("content_block_stop", {"index": index}))
    return StreamReply(events, _event("message_delta", end), _STOP_EVENT)


def _event(name: str, content: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **content}))
