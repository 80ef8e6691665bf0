"""Stored answers told again: as a stream, in another dialect, and to who labels them otherwise."""

from __future__ import annotations

import msgspec

from watchllm.cache.entry import Entry
from watchllm.domain import json_body
from watchllm.providers.dialect import CHAT, RESPONSES, Untranslatable
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai.replay import replay


def told_in(endpoint: Endpoint, entry: Entry, body: bytes) -> Entry | None:
    """`entry` as a request with that `body` may be given it; None where the endpoint's dialect would say less."""
    if entry.dialect == endpoint.dialect:
        if entry.dialect != RESPONSES:
            return entry
        from watchllm.providers.responses.echo import labelled  # as below

        return msgspec.structs.replace(entry, body=labelled(entry.body, json_body.parse(body)))
    from watchllm.providers.translation import between  # most answers are asked for in the words they were given in

    try:
        told = between.answer_in(
            endpoint.dialect, entry.dialect, entry.body, json_body.parse(body), created=entry.created_ms // 1000
        )
    except Untranslatable:
        return None
    return msgspec.structs.replace(entry, body=told.body, dialect=endpoint.dialect) if told.exact else None


def replayed(endpoint: Endpoint, body: bytes, *, include_usage: bool) -> bytes:
    """A whole answer in the endpoint's own dialect, as the stream that a client there expects."""
    if endpoint.dialect == CHAT:
        return replay(endpoint.family, body, include_usage=include_usage)
    from watchllm.providers.dialects import dialect  # as above

    return dialect(endpoint.dialect).replay(body, include_usage=include_usage)
