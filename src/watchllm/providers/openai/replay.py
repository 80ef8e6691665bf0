"""Tells a stored answer as a stream, in the chunks that OpenAI would have sent, so that clients cannot tell.

For each choice: a chunk with the role, the text in a few pieces, each tool call as its name and then its arguments,
and a chunk with the finish reason; then, if asked for, usage in a chunk of its own; then `[DONE]`. Joining the chunks
by the rules of `assemble` gives the answer again.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from watchllm.providers.pieces import pieces, pieces_with_tokens


def replay(family: str, body: bytes, *, include_usage: bool) -> bytes:
    """The whole stream for an answer that `storable.judge` let pass.

    `family` is `generate` (chat) or `completions`; `include_usage` is the client's `stream_options.include_usage`.
    """
    answer: dict[str, Any] = _decode(body)
    completions = family == "completions"
    head = {field: answer[field] for field in _HEAD if field in answer}
    head["object"] = "text_completion" if completions else "chat.completion.chunk"
    # What else the vendor says of the whole answer is said once, with the first chunk.
    extras = {field: value for field, value in answer.items() if field not in _NOT_EXTRA}
    events = []
    opening = _opening(head | extras)
    closing = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
    for choice in answer["choices"]:
        for piece in _text_pieces(choice) if completions else _message_pieces(choice):
            events.append(opening + _encode(piece) + closing)
            if extras:
                opening, extras = _opening(head), {}
    if include_usage and answer.get("usage") is not None:
        events.append(_opening(head) + b'],"usage":' + _encode(answer["usage"]) + b"}\n\n")
    events.append(b"data: [DONE]\n\n")
    return b"".join(events)


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
_NOT_EXTRA = frozenset((*_HEAD, "choices", "usage"))
_NOT_AT_END = frozenset(("index", "message", "text", "logprobs", "finish_reason"))


def _opening(head: dict[str, Any]) -> bytes:
    """An event up to where its choices begin; a head is never empty."""
    return b"data: " + _encode(head)[:-1] + b',"choices":['


def _message_pieces(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index = choice.get("index", 0)
    message: dict[str, Any] = choice["message"]
    logprobs: Any = choice.get("logprobs")
    # OpenAI writes `"logprobs": null` into every chunk; a vendor that leaves it out of answers, leaves it out of these.
    no_logprobs = {"logprobs": None} if "logprobs" in choice else {}

    def piece(delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": index, "delta": delta} | no_logprobs | {"finish_reason": None}

    opening = {field: value for field, value in message.items() if field not in _TOLD_LATER}
    for field in _TEXTS:
        if field in message:
            opening[field] = "" if field == "content" and type(message[field]) is str else None
            if message[field] is not None and type(message[field]) is not str:
                opening[field] = message[field]
    if "tool_calls" in message and not message["tool_calls"]:
        opening["tool_calls"] = message["tool_calls"]
    if "function_call" in message and message["function_call"] is None:
        opening["function_call"] = None
    # Log probabilities go along with the text that they are of; those of no text that is told go first.
    told = {field: logprobs[field] for field in _TEXTS if _goes_with_text(message, logprobs, field)}
    first = piece(opening)
    if logprobs is not None:
        untold = logprobs if type(logprobs) is not dict else logprobs | dict.fromkeys(told)
        if not told or any(value is not None for value in untold.values()):
            first["logprobs"] = untold
    yield first
    for field in _TEXTS:
        if type(message.get(field)) is str:
            for text, tokens in pieces_with_tokens(message[field], told.get(field)):
                part = piece({field: text})
                if tokens is not None:
                    part["logprobs"] = dict.fromkeys(logprobs) | {field: tokens}
                yield part
    for number, call in enumerate(message.get("tool_calls") or ()):
        for delta in _call_pieces(call):
            yield piece({"tool_calls": [{"index": number} | delta | {"index": number}]})
    if message.get("function_call"):
        for delta in _call_pieces({"function": message["function_call"]}):
            yield piece({"function_call": delta["function"]})
    yield _last(choice, {"index": index, "delta": {}} | no_logprobs)


# In the order in which models write them.
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
_TOLD_LATER = frozenset((*_TEXTS, "tool_calls", "function_call"))


def _goes_with_text(message: dict[str, Any], logprobs: Any, field: str) -> bool:
    return type(logprobs) is dict and type(logprobs.get(field)) is list and type(message.get(field)) is str


def _last(choice: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    extras = {field: value for field, value in choice.items() if field not in _NOT_AT_END}
    return piece | {"finish_reason": choice.get("finish_reason")} | extras


def _call_pieces(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A tool call as OpenAI streams it: all but the input, then the input (`arguments`, or a custom tool's `input`)."""
    for holder, field in (("function", "arguments"), ("custom", "input")):
        inner = call.get(holder)
        if type(inner) is dict and type(inner.get(field)) is str:
            yield call | {holder: inner | {field: ""}}
            for text in pieces(inner[field]):
                yield {holder: {field: text}}
            return
    yield call


def _text_pieces(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    index = choice.get("index", 0)
    logprobs = choice.get("logprobs")
    no_logprobs = {"logprobs": None} if "logprobs" in choice else {}
    # Offsets and probabilities belong to the text as a whole, so with them it is told in one piece.
    for text in pieces(choice["text"]) if logprobs is None else [choice["text"]]:
        told = no_logprobs if logprobs is None else {"logprobs": logprobs}
        yield {"text": text, "index": index} | told | {"finish_reason": None}
    yield _last(choice, {"text": "", "index": index} | no_logprobs)
