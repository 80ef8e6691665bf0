"""Messages in Anthropic's dialect, as hypothesis strategies, and streams of them.

Their form follows the reference of the Messages API and its page on streaming.
"""

import json
from typing import Any

from hypothesis import strategies as st

# JSON has no half surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
said = texts.filter(lambda text: text.strip() != "")
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | words
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)
counts = st.integers(0, 9999)

url_citations = st.fixed_dictionaries(
    {
        "type": st.just("web_search_result_location"),
        "url": words,
        "title": words,
        "cited_text": words,
        "encrypted_index": words,
    }
)
page_citations = st.fixed_dictionaries(
    {
        "type": st.just("page_location"),
        "cited_text": words,
        "document_index": st.just(0),
        "document_title": st.none() | words,
        "start_page_number": st.just(1),
        "end_page_number": st.just(2),
    }
)
text_blocks = st.fixed_dictionaries(
    {"type": st.just("text"), "text": texts},
    optional={"citations": st.none() | st.lists(url_citations | page_citations, max_size=3)},
)
thinking_blocks = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": texts, "signature": words})
redacted_blocks = st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": words})
inputs = st.dictionaries(words, json_values, max_size=4)
tool_blocks = st.fixed_dictionaries(
    {"type": st.just("tool_use"), "id": words, "name": words, "input": inputs},
    optional={"caller": st.just({"type": "direct"})},
)
hosted_blocks = st.one_of(
    st.fixed_dictionaries({"type": st.just("server_tool_use"), "id": words, "name": words, "input": inputs}),
    st.fixed_dictionaries(
        {"type": st.just("web_search_tool_result"), "tool_use_id": words, "content": st.lists(inputs, max_size=2)}
    ),
)
usages = st.fixed_dictionaries(
    {"input_tokens": counts, "output_tokens": counts},
    optional={
        "cache_creation_input_tokens": counts,
        "cache_read_input_tokens": counts,
        "cache_creation": st.just({"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}),
        "output_tokens_details": st.none() | st.fixed_dictionaries({"thinking_tokens": counts}),
        "server_tool_use": st.none() | st.just({"web_search_requests": 1}),
        "service_tier": st.sampled_from(["standard", "priority"]),
    },
)


@st.composite
def messages(draw: st.DrawFn, *, hosted: bool = False) -> dict[str, Any]:
    """Whole messages; `hosted`: also with the provider's own tools."""
    kinds = [text_blocks, thinking_blocks, redacted_blocks, tool_blocks, *([hosted_blocks] if hosted else [])]
    reason = draw(st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "tool_use"]))
    message = {
        "id": draw(words),
        "type": "message",
        "role": "assistant",
        "model": draw(words),
        "content": draw(st.lists(st.one_of(kinds), max_size=4)),
        "stop_reason": reason,
        "stop_sequence": draw(words) if reason == "stop_sequence" else None,
        "usage": draw(usages),
    }
    return message | draw(st.fixed_dictionaries({}, optional={"stop_details": st.none(), "container": st.none()}))


def event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind} | members).encode())


def begun(**usage: Any) -> bytes:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 1} | usage,
    }
    return event("message_start", message=message)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    pieces = [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    stop = event("content_block_stop", index=index)
    return b"".join([event("content_block_start", index=index, content_block=start), *pieces, stop])


def text(index: int, *pieces: str) -> bytes:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def tool(index: int, name: str, *pieces: str) -> bytes:
    start = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
    return block(index, start, *[{"type": "input_json_delta", "partial_json": piece} for piece in pieces])


def ended(reason: str = "end_turn", output: int = 15, **delta: Any) -> bytes:
    told = {"stop_reason": reason, "stop_sequence": None} | delta
    return event("message_delta", delta=told, usage={"output_tokens": output})


STOP = event("message_stop")
PING = event("ping")
