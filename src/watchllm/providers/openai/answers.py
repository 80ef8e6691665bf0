"""How requests to the cached endpoints are made for upstream, and their answers read."""

from typing import Any

import msgspec
from msgspec import structs

from watchllm.domain.usage import TokenUsage
from watchllm.providers import tokens
from watchllm.providers.dialect import Verdict
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.providers.openai.storable import judge
from watchllm.providers.openai.usage import estimated_usage, text_of

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def upstream_body(document: dict[str, Any], body: bytes, model: str, *, include_usage: bool) -> bytes:
    """The request as it goes upstream: byte for byte the client's, unless the model has another name there or usage
    has to be asked for; then only these members are written anew."""
    if document["model"] == model and not include_usage:
        return body
    members: dict[str, Any] = _members(body)
    members["model"] = model
    if include_usage:
        options = document.get("stream_options")
        members["stream_options"] = (options if type(options) is dict else {}) | {"include_usage": True}
    return _encode(members)


def takes_usage(document: dict[str, Any]) -> bool:
    """Whether usage can be asked for without mending a mistake that is the provider's to refuse."""
    options = document.get("stream_options")
    if type(options) is dict:
        options = options.get("include_usage")
    return options is None or options is False


def judge_answer(endpoint: Endpoint, body: bytes, document: dict[str, Any]) -> Verdict:
    """What a whole answer with status 200 to the request `document` is; usage that it lacks is estimated."""
    verdict = judge(endpoint.family, body, expected=_expected(endpoint, document))
    if verdict.usage is not None or not verdict.readable:
        return verdict
    output = ""
    if endpoint.family != "embeddings":
        output = text_of(_decode(body).get("choices"))
    return verdict._replace(usage=estimated_usage(document, output))


def usage_so_far(document: dict[str, Any], stream: StreamAssembler | None) -> TokenUsage:
    """What a call has used that ends without saying so, or is broken off: the prompt and the text of its stream."""
    used = estimated_usage(document, stream.text if stream is not None else "")
    if stream is None or stream.failure is None:
        return used
    # Of a stream too long to be kept only the length is known.
    return structs.replace(used, output=tokens.rough(stream.text_length))


def assembler_of(endpoint: Endpoint, document: dict[str, Any]) -> StreamAssembler:
    """What puts the stream that answers `document` together."""
    return StreamAssembler(endpoint.family, choices=_expected(endpoint, document) or 1)


def _expected(endpoint: Endpoint, document: dict[str, Any]) -> int | None:
    """How many choices or embeddings were asked for, where that is plain."""
    if endpoint.family == "embeddings":
        items = document.get("input")
        if type(items) is not list:
            return 1
        return 1 if items and type(items[0]) is int else len(items)
    number = document.get("n")
    return number if type(number) is int and number > 0 and endpoint.family == "generate" else None
