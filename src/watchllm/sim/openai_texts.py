"""`/completions`, `/embeddings` and `/moderations` as OpenAI answers them."""

import base64
import hashlib
import math
from array import array
from typing import Any

import msgspec

from watchllm.sim.answer import Ask, Choice, decide
from watchllm.sim.knobs import Knobs
from watchllm.sim.openai_chat import DONE, FINGERPRINT
from watchllm.sim.openai_usage import alternatives, token_logprob, usage_of
from watchllm.sim.openai_validation import check_completion, require, wrong_type
from watchllm.sim.reply import Answer, Refused, Reply, Request, StreamReply
from watchllm.sim.text import count_tokens, digest

_DEFAULT_MAX_TOKENS = 16
_DEFAULT_DIMENSIONS = 1536
_MAX_DIMENSIONS = 8192
_MAX_INPUTS = 2048
_encode = msgspec.json.Encoder().encode
_SEED_IGNORES = frozenset(
    {
        "model", "prompt", "stream", "stream_options", "user", "n", "best_of", "max_tokens", "stop", "logprobs", "echo",
    }
)  # fmt: skip
_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def completion(request: Request) -> Answer:
    """Raises Refused."""
    fields = request.fields
    check_completion(fields)
    prompts = _inputs(fields.get("prompt", "<|endoftext|>"), "prompt")
    choices = [choice for prompt in prompts for choice in _complete(prompt, fields, request.knobs)]
    usage = usage_of(
        sum(_tokens_of(prompt) for prompt in prompts), sum(len(choice.tokens) for choice in choices), request.knobs
    )
    envelope = {
        "id": f"cmpl-{request.run}{request.number:08d}",
        "object": "text_completion",
        "created": request.created,
        "model": fields["model"],
        "system_fingerprint": FINGERPRINT,
    }
    top = fields.get("logprobs")
    if fields.get("stream"):
        return _stream(envelope, choices, usage, fields, request.knobs)
    body = {
        **envelope,
        "choices": [
            {
                "text": choice.text,
                "index": index,
                "logprobs": _logprobs(choice.tokens, top),
                "finish_reason": choice.finish,
            }
            for index, choice in enumerate(choices)
        ],
    }
    if not request.knobs.no_usage:
        body["usage"] = usage
    return Reply(_encode(body))


def embeddings(request: Request) -> Answer:
    """Raises Refused."""
    fields = request.fields
    require(fields, "model")
    require(fields, "input")
    inputs = _inputs(fields["input"], "input")
    dimensions = fields.get("dimensions")
    if dimensions is None:
        dimensions = _DEFAULT_DIMENSIONS
    elif not isinstance(dimensions, int) or isinstance(dimensions, bool):
        raise wrong_type("dimensions", "an integer", dimensions)
    elif not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise Refused(
            f"Invalid value for 'dimensions': expected 1 to {_MAX_DIMENSIONS}.",
            param="dimensions",
            code="invalid_value",
        )
    encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise Refused(
            f"Invalid value: '{encoding}'. Supported values are: 'float' and 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
    model = fields["model"].encode()
    data = []
    for index, item in enumerate(inputs):
        vector = unit_vector(model, item, dimensions)
        shown: Any = base64.b64encode(vector.tobytes()).decode() if encoding == "base64" else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    body: dict[str, Any] = {"object": "list", "data": data, "model": fields["model"]}
    if not request.knobs.no_usage:
        tokens = sum(map(_tokens_of, inputs))
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(_encode(body))


def moderation(request: Request) -> Answer:
    """A text is flagged for each category that it names. Raises Refused."""
    fields = request.fields
    require(fields, "input")
    given = fields["input"]
    items = given if isinstance(given, list) else [given]
    if items and isinstance(items[0], dict):
        # Parts of one multimodal input make one result.
        items = [" ".join(str(part.get("text", "")) for part in items if isinstance(part, dict))]
    body = {
        "id": f"modr-{request.run}{request.number:08d}",
        "model": fields.get("model") or "omni-moderation-latest",
        "results": [_moderate(str(item).lower()) for item in items],
    }
    return Reply(_encode(body))


def unit_vector(model: bytes, item: str | list[int], dimensions: int) -> "array[float]":
    """A vector of length 1 in 32-bit floats, little-endian, that depends only on model, text and dimensions."""
    text = item.encode() if isinstance(item, str) else _encode(item)
    kind = b"text" if isinstance(item, str) else b"tokens"
    raw = array("h", hashlib.shake_128(digest(model, kind, text)).digest(2 * dimensions))
    length = math.hypot(*raw) or 1.0
    return array("f", [value / length for value in raw])


def _inputs(value: Any, name: str) -> list[str | list[int]]:
    """One text, several, one array of tokens, or several of them."""
    if isinstance(value, str):
        items: list[Any] = [value]
    elif isinstance(value, list) and value and all(type(one) is int for one in value):
        items = [value]
    elif isinstance(value, list):
        items = value
    else:
        raise wrong_type(
            name, "one of a string, array of strings, array of integers, or array of integer arrays", value
        )
    if not items or (any(item == "" or item == [] for item in items) and name == "input"):
        raise Refused(
            f"'$.{name}' is invalid. Please check the API reference: an {name} must not be empty.", param=None
        )
    if len(items) > _MAX_INPUTS:
        raise Refused(f"'$.{name}' is invalid: at most {_MAX_INPUTS} items are allowed.", param=None)
    for item in items:
        if not isinstance(item, str) and not (isinstance(item, list) and all(type(one) is int for one in item)):
            raise wrong_type(name, "an array of strings or of integer arrays", item)
    return items


def _tokens_of(item: str | list[int]) -> int:
    return count_tokens(item) if isinstance(item, str) else len(item)


def _complete(prompt: str | list[int], fields: dict[str, Any], knobs: Knobs) -> list[Choice]:
    text = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    rest = {name: value for name, value in fields.items() if name not in _SEED_IGNORES}
    stop = fields.get("stop") or ()
    limit = fields.get("max_tokens")
    ask = Ask(
        seed=digest(text.encode(), _encode(rest)),
        text=text,
        choices=fields.get("n") or 1,
        max_tokens=limit if limit is not None else max(_DEFAULT_MAX_TOKENS, knobs.tokens),
        stop=(stop,) if isinstance(stop, str) else tuple(one for one in stop if one),
    )
    choices = decide(ask, knobs)
    if fields.get("echo"):
        return [Choice([text, *choice.tokens], choice.calls, choice.finish) for choice in choices]
    return choices


def _logprobs(tokens: list[str], top: int | None, offset: int = 0) -> dict[str, Any] | None:
    if top is None:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": list(map(token_logprob, tokens)),
        "top_logprobs": [dict(alternatives(token, top)) for token in tokens],
        "text_offset": offsets,
    }


def _stream(
    envelope: dict[str, Any], choices: list[Choice], usage: dict[str, Any], fields: dict[str, Any], knobs: Knobs
) -> StreamReply:
    include_usage = bool((fields.get("stream_options") or {}).get("include_usage")) and not knobs.no_usage
    prefix = b"data: " + _encode(envelope)[:-1] + b',"choices":['
    suffix = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
    top = fields.get("logprobs")
    events = []
    for index, choice in enumerate(choices):
        offset = 0
        for token in choice.tokens:
            piece = {"text": token, "index": index, "logprobs": _logprobs([token], top, offset), "finish_reason": None}
            events.append(prefix + _encode(piece) + suffix)
            offset += len(token)
        events.append(
            prefix + _encode({"text": "", "index": index, "logprobs": None, "finish_reason": choice.finish}) + suffix
        )
    usage_event = prefix + b'],"usage":' + _encode(usage) + b"}\n\n" if include_usage else b""
    return StreamReply(events, usage_event, DONE)


def _moderate(text: str) -> dict[str, Any]:
    categories = {category: category.partition("/")[0] in text for category in _CATEGORIES}
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": {category: 0.98 if flagged else 0.0001 for category, flagged in categories.items()},
        "category_applied_input_types": {
            category: ["text"] if flagged else [] for category, flagged in categories.items()
        },
    }
