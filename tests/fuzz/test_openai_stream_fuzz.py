"""Fuzz: whatever a provider sends, it is judged, read along and told again without an exception."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.answers import chat_answers, json_values, text_answers
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.replay import replay
from watchllm.providers.openai.storable import judge
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.wire.sse import EventScanner, event_data

pytestmark = pytest.mark.fuzz

families = st.sampled_from(["generate", "completions"])
deltas = st.dictionaries(
    st.sampled_from(["content", "role", "tool_calls", "function_call", "refusal", "audio", "x"]), json_values(6)
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 3) | json_values(2),
        "delta": deltas | json_values(2),
        "message": deltas | json_values(2),
        "text": json_values(2),
        "finish_reason": st.sampled_from([None, "stop", "length", ""]) | json_values(2),
        "logprobs": json_values(4),
        "x": json_values(2),
    },
)
chunks = st.one_of(
    json_values(),
    st.fixed_dictionaries(
        {"choices": st.lists(choices, max_size=3) | json_values(3)},
        optional={"usage": json_values(4), "id": json_values(2), "x_groq": json_values(4), "error": json_values(2)},
    ),
)


@given(families, st.lists(chunks, max_size=6), st.booleans())
def test_any_stream_of_chunks_is_read_along(family: str, stream: list[Any], done: bool) -> None:
    assembler = StreamAssembler(family)
    for chunk in stream:
        assembler.feed(json.dumps(chunk).encode())
    if done:
        assembler.feed(b"[DONE]")
    result = assembler.result()
    assert (assembler.usage, assembler.finish_reasons) is not None
    if result is not None:
        assert done
        assert assembler.error is None
        json.loads(result)
        if judge(family, result).storable:
            assert replay(family, result, include_usage=True).endswith(b"data: [DONE]\n\n")


@given(families, chunks | st.fixed_dictionaries({"choices": st.lists(choices, min_size=1, max_size=2)}))
def test_any_answer_that_is_stored_can_be_told_again(family: str, answer: Any) -> None:
    body = json.dumps(answer).encode()
    if judge(family, body).storable:
        events = EventScanner().feed(replay(family, body, include_usage=False))
        assert all(json.loads(event_data(raw) or b"")["choices"] for raw in events[:-1])
    judge("embeddings", body, expected=1)


@given(families, st.binary(max_size=60))
def test_bytes_that_are_no_json_are_neither_stored_nor_put_together(family: str, data: bytes) -> None:
    judge(family, data)
    judge("embeddings", data)
    assembler = StreamAssembler(family)
    assembler.feed(data)
    assembler.feed(b"[DONE]")
    assert assembler.result() is None


@given(chat_answers() | text_answers())
def test_an_answer_that_is_told_is_an_answer_that_is_judged_the_same(answer: dict[str, Any]) -> None:
    family = "completions" if answer["object"] == "text_completion" else "generate"
    body = json.dumps(answer).encode()
    assembler = StreamAssembler(family, choices=len(answer["choices"]))
    for raw in EventScanner().feed(replay(family, body, include_usage=True)):
        assembler.feed(event_data(raw) or b"")
    result = assembler.result()
    assert result is not None
    assert judge(family, result) == judge(family, body)


@given(st.dictionaries(st.sampled_from(["usage", 'a"usage":null', "b", "choices"]), json_values(4)), st.booleans())
def test_only_usage_is_ever_cut(chunk: dict[str, Any], spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    raw = b"data: " + json.dumps(chunk, separators=separators).encode() + b"\n\n"
    left = without_usage(raw)
    if "usage" in chunk and chunk["usage"] is None:
        rest = {name: value for name, value in chunk.items() if name != "usage"}
        assert left == b"data: " + json.dumps(rest, separators=separators).encode() + b"\n\n"
    elif "usage" in chunk and chunk.get("choices") == []:
        assert left == b""
    else:
        assert left == raw
