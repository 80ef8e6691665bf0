"""Chat streams become Anthropic's event streams, which its own client puts together.

The chunks follow OpenAI's API reference ("The chat completion chunk object", `stream_options`); the events are judged
by Anthropic's guide "Streaming messages" (order of events) and its official client.
"""

import json
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.translation.chat_completions import completion
from tests.unit.providers.translation.chat_streams import (
    DONE,
    USAGE,
    USAGE_CHUNK,
    call,
    calls,
    check_order,
    chunk,
    content_of,
    events_of,
    fed,
    message_of,
    says,
)
from tests.unit.providers.translation.replaced import replaced
from watchllm.providers.openai.replay import replay
from watchllm.providers.translation.answer_chat_to_messages import translate
from watchllm.providers.translation.stream_chat_to_messages import Translator
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage


def test_a_text_event_by_event() -> None:
    translator = Translator()
    assert events_of(translator.feed(says(role="assistant", content=""))) == [
        {
            "type": "message_start",
            "message": {
                "id": "chatcmpl-1",
                "type": "message",
                "role": "assistant",
                "model": "gpt-4o-mini",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            },
        }
    ]
    assert events_of(translator.feed(says(content="Hel"))) == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    ]
    assert (
        translator.feed(says(content="lo\n🗼"))
        == (
            "event: content_block_delta\n"
            'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo\\n🗼"}}\n\n'
        ).encode()
    )
    assert translator.feed(says("stop")) == b""
    assert events_of(translator.feed(USAGE_CHUNK)) == [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 36,
                "cache_read_input_tokens": 64,
                "cache_creation_input_tokens": 0,
                "output_tokens": 20,
                "output_tokens_details": {"thinking_tokens": 7},
            },
        },
    ]
    assert events_of(translator.feed(DONE)) == [{"type": "message_stop"}]
    assert translator.finish() == b""


def test_the_official_client_reads_text_and_usage() -> None:
    stream = fed([says(role="assistant", content=""), says(content="Hi"), says("stop"), USAGE_CHUNK, DONE])
    message = message_of(stream)
    assert message.content[0].model_dump(exclude_none=True) == {"type": "text", "text": "Hi"}
    assert (message.stop_reason, message.model, message.id) == ("end_turn", "gpt-4o-mini", "chatcmpl-1")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (36, 64)
    assert message.usage.output_tokens == 20


def test_the_stop_reason_waits_for_the_end_where_no_usage_comes() -> None:
    translator = Translator()
    translator.feed(says(content="Hi"))
    assert translator.feed(says("length")) == b""
    told = events_of(translator.feed(DONE))
    assert [event["type"] for event in told] == ["content_block_stop", "message_delta", "message_stop"]
    assert told[1]["delta"]["stop_reason"] == "max_tokens"
    assert told[1]["usage"]["output_tokens"] == 0


@pytest.mark.parametrize("where", [{"usage": USAGE}, {"x_groq": {"id": "req", "usage": USAGE}}])
def test_usage_beside_the_finish_reason_counts(where: dict[str, Any]) -> None:
    last = chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, **where)
    assert message_of(fed([says(content="Hi"), last, DONE])).usage.output_tokens == 20


def test_usage_that_grows_with_each_chunk_ends_at_its_last() -> None:
    def so_far(count: int, *choices: dict[str, Any]) -> bytes:
        return chunk(*choices, usage=USAGE | {"completion_tokens": count})

    says_one = {"index": 0, "delta": {"content": "Hi"}}
    ends = {"index": 0, "delta": {}, "finish_reason": "stop"}
    message = message_of(fed([so_far(1, says_one), so_far(9), so_far(10, ends), so_far(11), DONE]))
    assert message.usage.output_tokens == 11


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_a_thinking_block_of_its_own(field: str) -> None:
    thought = [says(role="assistant", content=None, **{field: piece}) for piece in ("Hm", "...")]
    content = content_of(*thought, says(content="Yes"), says("stop"), USAGE_CHUNK, DONE)
    assert content == [
        {"type": "thinking", "thinking": "Hm...", "signature": ""},
        {"type": "text", "text": "Yes"},
    ]


def test_signed_reasoning_keeps_its_signatures() -> None:
    def signed(signature: str) -> bytes:
        return says(thinking_blocks=[{"type": "thinking", "thinking": "", "signature": signature}])

    redacted = says(thinking_blocks=[{"type": "redacted_thinking", "data": "d"}])
    first, second = says(reasoning_content="A"), says(reasoning_content="B")
    content = content_of(first, signed("s1"), second, signed("s2"), redacted, says("stop", content="Yes"), DONE)
    assert content == [
        {"type": "thinking", "thinking": "A", "signature": "s1"},
        {"type": "thinking", "thinking": "B", "signature": "s2"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "Yes"},
    ]


@pytest.mark.parametrize("numbered", [True, False])
def test_a_second_thinking_block_may_have_only_a_signature(numbered: bool) -> None:
    def thought(index: int, **members: str) -> bytes:
        number = {"index": index} if numbered else {}
        return says(thinking_blocks=[number | {"type": "thinking"} | members])

    pieces = [thought(0, thinking="A"), thought(0, signature="s1"), thought(1, thinking=""), thought(1, signature="s2")]
    assert content_of(*pieces, says("stop", content="Yes"), DONE) == [
        {"type": "thinking", "thinking": "A", "signature": "s1"},
        {"type": "thinking", "thinking": "", "signature": "s2"},
        {"type": "text", "text": "Yes"},
    ]


def test_thinking_blocks_that_come_whole_keep_their_own_texts() -> None:
    blocks = [{"type": "thinking", "thinking": text, "signature": f"s{text}"} for text in ("A", "B")]
    assert content_of(says(reasoning_content="AB", thinking_blocks=blocks), says("stop", content="Yes"), DONE) == [
        *blocks,
        {"type": "text", "text": "Yes"},
    ]


def test_a_refusal_is_text_and_the_reason_to_stop() -> None:
    message = message_of(fed([says(refusal="I can't"), says(refusal=" help."), says("stop"), DONE]))
    assert message.content[0].model_dump(exclude_none=True) == {"type": "text", "text": "I can't help."}
    assert message.stop_reason == "refusal"


def test_citations_close_the_text_that_they_are_of() -> None:
    page = {"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "Example"}}
    content = content_of(says(content="See."), says(annotations=[page]), says("stop"), DONE)
    assert [citation["url"] for citation in content[0]["citations"]] == ["https://example.com"]


def test_a_stop_sequence_is_named_where_the_vendor_tells_it() -> None:
    last = chunk({"index": 0, "delta": {"content": ""}, "finish_reason": "stop", "stop_reason": "END"})
    message = message_of(fed([says(content="Hi"), last, DONE]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


def test_an_empty_answer_is_a_message_without_blocks() -> None:
    assert content_of(says(role="assistant", content=""), says("stop"), DONE) == []


def test_a_cut_stream_does_not_look_like_a_good_end() -> None:
    whole = [says(content="Hi"), says("stop"), USAGE_CHUNK]
    for length in range(len(whole) + 1):
        told = events_of(fed(whole[:length]))
        assert "message_stop" not in [event["type"] for event in told]


ERRORS: list[tuple[bytes, str, str]] = [
    (b'{"error": {"message": "slow down", "code": 429}}', "rate_limit_error", "slow down"),
    (b'{"error": {"message": "busy", "type": "overloaded_error"}}', "overloaded_error", "busy"),
    (b'{"error": "out of memory"}', "api_error", "out of memory"),
    (b'{"object": "error", "message": "bad", "code": 400}', "invalid_request_error", "bad"),
    (
        chunk({"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "x"}}),
        "api_error",
        "x",
    ),
]


@pytest.mark.parametrize(("data", "kind", "message"), ERRORS)
def test_an_error_in_the_stream_is_anthropics_own_and_ends_it(data: bytes, kind: str, message: str) -> None:
    translator = Translator()
    translator.feed(says(content="Hi"))
    told = translator.feed(data)
    assert events_of(told) == [{"type": "error", "error": {"type": kind, "message": message}}]
    assert translator.feed(says(content="more")) == translator.feed(DONE) == translator.finish() == b""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=told)

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as transport,
        anthropic.Anthropic(api_key="k", base_url="http://provider", http_client=transport, max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError, match=message),
    ):
        list(client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}], stream=True))


BAD: dict[str, list[bytes]] = {
    "is not JSON": [b"<html>"],
    "is not an object": [b"[]"],
    "nested too deep": [b"[" * 100_000],
    "one choice": [chunk({"index": 0, "delta": {}}, {"index": 1, "delta": {}})],
    "more than one choice": [chunk({"index": 1, "delta": {"content": "x"}})],
    "delta of the stream is not an object": [chunk({"index": 0, "delta": "x"})],
    "audio": [says(audio={"data": "x"})],
    "content of an unknown kind": [says(content=[{"type": "video"}])],
    "reason that is not known": [says("insufficient_system_resource")],
    "without a finish_reason": [says(content="Hi"), DONE],
    "too many citations": [says(citations=[{"type": "char_location"}] * 5000)],
    "behind its usage": [says(content="Hi"), says("stop"), USAGE_CHUNK, says(content="more")],
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_no_chat_stream_is_said_to_be_none(reason: str) -> None:
    with pytest.raises(BadMessage, match=reason):
        fed(BAD[reason])


RECORDED = b"".join(
    b"data: " + data + b"\n\n"
    for data in (
        says(role="assistant", content=""),
        says(reasoning_content="Häm"),
        says(content="Grüß "),
        says(content="dich 🗼\r\n"),
        calls(call(0, "", "weather", id="call_a", type="function")),
        calls(call(0, '{"city"')),
        calls(call(0, ':"Rome"}')),
        calls(call(1, '{"zone":"UTC"}', "time", id="call_b", type="function")),
        says("tool_calls"),
        USAGE_CHUNK,
        DONE,
    )
)


@pytest.mark.parametrize(
    ("told", "exact"),
    [
        ({"content": "Hi", "reasoning_content": "Hm"}, True),
        ({"content": "Hi", "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}]}, False),
        ({"content": "Hi", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, False),
    ],
)
def test_a_stream_tells_less_where_the_whole_answer_does(told: dict[str, Any], exact: bool) -> None:
    translator = Translator()
    for data in (says(role="assistant", content=""), says(**told), says("stop"), DONE):
        translator.feed(data)
    assert translator.exact is translate(json.dumps(completion("stop", **told)).encode()).exact is exact


@given(st.lists(st.integers(0, len(RECORDED)), max_size=12))
def test_how_the_stream_is_split_does_not_matter(cuts: list[int]) -> None:
    scanner, translator = EventScanner(), Translator()
    told = b""
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(RECORDED)], strict=True):
        for raw in scanner.feed(RECORDED[start:end]):
            told += translator.feed(event_data(raw) or b"")
    assert told == fed(event_data(raw) or b"" for raw in EventScanner().feed(RECORDED))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
tool_calls = st.lists(
    st.builds(
        lambda name, given: {"name": name, "arguments": json.dumps(given)},
        texts.filter(bool),
        st.dictionaries(texts, st.integers(0, 9) | texts, max_size=3),
    ),
    max_size=3,
)


@given(texts, texts, tool_calls, st.sampled_from(["stop", "length", "content_filter"]))
def test_a_stream_says_what_the_whole_answer_says(text: str, thought: str, made: list[Any], finish: str) -> None:
    numbered = [{"id": f"call_{n}", "type": "function", "function": call} for n, call in enumerate(made)]
    answer = completion(finish, content=text, reasoning_content=thought, tool_calls=numbered)
    body = json.dumps(answer).encode()
    stream = replay("generate", body, include_usage=True)
    read = message_of(fed(event_data(raw) or b"" for raw in EventScanner().feed(stream)))
    whole = Message.model_validate_json(translate(body).body)
    assert read.model_dump(exclude={"content": {"__all__": {"parsed_output"}}}) == whole.model_dump()


@given(
    st.lists(
        replaced(
            json.loads(
                says(
                    "tool_calls",
                    role="assistant",
                    content="x",
                    reasoning_content="r",
                    refusal=None,
                    annotations=[{"url_citation": {"url": "u"}}],
                    thinking_blocks=[{"type": "thinking", "thinking": "t", "signature": "s"}],
                    tool_calls=[call(0, "{", "a", id="c"), call(None, "}", "b")],
                )
            )
            | {"usage": USAGE, "error": None}
        ),
        max_size=4,
    )
)
def test_whatever_comes_is_told_in_order_or_is_no_chat_stream(chunks: list[Any]) -> None:
    translator = Translator()
    told = b""
    try:
        for data in [*(json.dumps(chunk).encode() for chunk in chunks), USAGE_CHUNK, DONE]:
            told += translator.feed(data)
    except BadMessage:
        return
    events = events_of(told)
    if events[-1]["type"] != "error":
        check_order(events)


def test_an_end_that_is_told_twice_is_an_error() -> None:
    opened, hello, end = says(role="assistant", content=""), says(content="Hello"), says("stop")
    with pytest.raises(BadMessage, match="come twice"):
        fed([opened, hello, end, end, USAGE_CHUNK, DONE])
    # Some vendors say the reason once more, with the usage.
    again = chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, usage=USAGE)
    assert fed([opened, hello, end, again, DONE]) == fed([opened, hello, end, USAGE_CHUNK, DONE])
    with pytest.raises(BadMessage, match="come twice"):
        fed([opened, opened, hello, end, again, DONE])
