"""How requests to the cached endpoints are made for upstream, and their answers read."""

from typing import Any

import msgspec
from msgspec import structs

from watchllm.domain import json_body
from watchllm.domain.usage import TokenUsage
from watchllm.providers import tokens
from watchllm.providers.dialect import CHAT, MESSAGES, RESPONSES, Assembler, Verdict
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai.usage import estimated_usage, text_of

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def upstream_body(body: bytes, model: str, *, include_usage: bool) -> bytes:
    """The request as it goes upstream where the model has another name there or usage has to be asked for: only these
    members are written anew. `body` was read before."""
    members: dict[str, Any] = _members(body)
    members["model"] = model
    if include_usage:
        options = _decode(members.get("stream_options", b"null"))
        members["stream_options"] = (options if type(options) is dict else {}) | {"include_usage": True}
    return _encode(members)


# Where a whole answer holds what the model wrote.
_WRITTEN = {CHAT: "choices", MESSAGES: "content", RESPONSES: "output"}


def with_usage(verdict: Verdict, endpoint: Endpoint, body: bytes, asked: bytes) -> Verdict:
    """The verdict on the answer `body` to the request with the body `asked`; usage that it lacks is estimated."""
    if verdict.usage is not None or not verdict.readable:
        return verdict
    output = ""
    if endpoint.family != "embeddings":
        output = text_of(_decode(body).get(_WRITTEN[endpoint.dialect]))
    return structs.replace(verdict, usage=estimated_usage(json_body.parse(asked), output))


def usage_so_far(asked: bytes, stream: Assembler | None) -> TokenUsage:
    """What a call has used that ends without saying so, or is broken off: the prompt and the text of its stream.

    `asked` is the request's body.
    """
    used = estimated_usage(json_body.parse(asked), stream.text if stream is not None else "")
    if stream is None or stream.failure is None:
        return used
    # Of a stream too long to be kept only the length is known.
    return structs.replace(used, output=tokens.rough(stream.text_length))
