"""Streams of the OpenAI dialect: put together, told again, and freed of usage that the client did not ask for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.answers import chat_answers, text_answers
from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.replay import replay
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.wire.sse import EventScanner, event_data


def fed(stream: bytes, family: str = "generate", **options: Any) -> StreamAssembler:
    assembler = StreamAssembler(family, **options)
    for raw in EventScanner().feed(stream):
        data = event_data(raw)
        if data is not None:
            assembler.feed(data)
    return assembler


def assembled(stream: bytes, family: str = "generate") -> Any:
    result = fed(stream, family).result()
    return None if result is None else json.loads(result)


def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": list(choices)} | more).encode() + b"\n\n"


def says(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish}


DONE = b"data: [DONE]\n\n"
HELLO = chunk(says(role="assistant", content="")) + chunk(says(content="Hel")) + chunk(says(content="lo"))
STOP = chunk(says(finish="stop"))


@given(chat_answers(), st.booleans())
def test_an_answer_told_as_a_stream_is_the_same_answer(answer: dict[str, Any], include_usage: bool) -> None:
    stream = replay("generate", json.dumps(answer).encode(), include_usage=include_usage)
    expected = answer if include_usage else {name: value for name, value in answer.items() if name != "usage"}
    assert assembled(stream) == expected


@given(text_answers(), st.booleans())
def test_a_legacy_completion_told_as_a_stream_is_the_same(answer: dict[str, Any], include_usage: bool) -> None:
    stream = replay("completions", json.dumps(answer).encode(), include_usage=include_usage)
    expected = answer if include_usage else {name: value for name, value in answer.items() if name != "usage"}
    assert assembled(stream, "completions") == expected


def completion(**message: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": None} | message, "logprobs": None,
             "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }  # fmt: skip


def told(answer: dict[str, Any], *, include_usage: bool = False) -> list[Any]:
    stream = replay("generate", json.dumps(answer).encode(), include_usage=include_usage)
    datas = [event_data(raw) for raw in EventScanner().feed(stream)]
    assert datas[-1] == b"[DONE]"
    return [json.loads(data or b"") for data in datas[:-1]]


def test_a_replay_has_the_chunks_that_openai_sends() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 20
    chunks = told(completion(content=text, refusal=None))
    assert all(c["object"] == "chat.completion.chunk" and c["id"] == "c1" and "usage" not in c for c in chunks)
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert deltas[-1] == {}
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert 2 <= len(deltas[1:-1]) <= 16
    assert all(delta["content"].endswith(" ") for delta in deltas[1:-1])


def test_usage_is_told_as_openai_tells_it_when_asked_for() -> None:
    chunks = told(completion(content="a"), include_usage=True)
    assert all(c["usage"] is None for c in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == completion()["usage"]


def test_a_tool_call_is_told_by_name_first_and_then_by_its_arguments() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    deltas = [c["choices"][0]["delta"] for c in told(completion(tool_calls=[call, call | {"id": "call_2"}]))]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [call["index"] for call in calls] == [0, 0, 1, 1]
    assert calls[0]["function"] == {"name": "f", "arguments": ""}
    assert calls[1] == {"index": 0, "function": {"arguments": '{"a":1}'}}


def test_log_probabilities_go_along_with_their_text() -> None:
    tokens = [{"token": f"word{n} ", "logprob": -n} for n in range(40)]
    answer = completion(content="".join(str(token["token"]) for token in tokens))
    answer["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    parts = [c["choices"][0] for c in told(answer)]
    told_parts = [part for part in parts if part["logprobs"] is not None]
    assert len(told_parts) > 1
    for part in told_parts:
        assert "".join(token["token"] for token in part["logprobs"]["content"]) == part["delta"]["content"]


def test_pieces_of_a_stream_are_joined() -> None:
    answer = assembled(HELLO + STOP + DONE)
    assert answer == {
        "id": "c1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    }


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        DONE,
        HELLO,
        HELLO + STOP,
        HELLO + DONE,
        HELLO + chunk(says(1, content="other")) + STOP + DONE,
        HELLO + b'data: {"error":{"message":"overloaded"}}\n\n' + STOP + DONE,
        HELLO + STOP + chunk(error={"message": "late"}) + DONE,
        HELLO + b"data: {broken\n\n" + STOP + DONE,
        HELLO + b'data: "text"\n\n' + STOP + DONE,
        HELLO + b'data: {"choices":{}}\n\n' + STOP + DONE,
        HELLO + b'data: {"choices":[{"index":"x"}]}\n\n' + STOP + DONE,
        HELLO + b'data: {"choices":[1]}\n\n' + STOP + DONE,
        HELLO + b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n' + STOP + DONE,
        HELLO + b'data: {"a":' + b"[" * 5000 + b"]" * 5000 + b"}\n\n" + STOP + DONE,
        HELLO + b'data: {"choices":[{"index":0,"delta":{"x":' + b"[" * 700 + b"]" * 700 + b"}}]}\n\n" + STOP + DONE,
        chunk(says(audio={"data": "AAAA"})) + STOP + DONE,
        chunk(says(content="a")) + chunk(says(content=[{"type": "text"}])) + STOP + DONE,
    ],
)
def test_a_cut_or_failed_stream_has_no_result(stream: bytes) -> None:
    assert fed(stream).result() is None


def test_a_stream_with_fewer_choices_than_asked_for_has_no_result() -> None:
    stream = HELLO + STOP + DONE
    assert fed(stream, choices=2).result() is None
    assert fed(chunk(says(1, content="b", finish="stop")) + stream, choices=2).result() is not None


def test_an_error_in_the_stream_is_seen() -> None:
    assert fed(HELLO + b'data: {"error":{"code":"x"}}\n\n').error == {"code": "x"}


def test_usage_finish_reasons_and_text_are_read_of_streams_without_a_result() -> None:
    usage = chunk(usage={"prompt_tokens": 3, "completion_tokens": 4})
    for stream in (HELLO + STOP + usage, HELLO + b"data: broken\n\n" + STOP + usage):
        read = fed(stream)
        assert (read.result(), read.usage, read.finish_reasons) == (None, TokenUsage(input=3, output=4), ("stop",))
    assert fed(HELLO).usage is None
    assert fed(chunk(says(content="Hello"))).text_length == 5


def test_groq_reports_usage_in_a_field_of_its_own() -> None:
    last = chunk(says(finish="stop"), x_groq={"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    answer = assembled(HELLO + last + DONE)
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}
    assert answer["x_groq"] == {"id": "req_1"}


def test_azure_begins_with_an_empty_chunk() -> None:
    first = b'data: {"id":"","model":"","created":0,"object":"","choices":[],"prompt_filter_results":[1]}\n\n'
    answer = assembled(first + HELLO + STOP + DONE)
    assert (answer["id"], answer["model"], answer["created"]) == ("c1", "m", 5)


def call(**parts: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "arguments": ""}} | parts


def joined_calls(*deltas: list[dict[str, Any]]) -> Any:
    stream = b"".join(chunk(says(tool_calls=delta)) for delta in deltas)
    return assembled(stream + chunk(says(finish="tool_calls")) + DONE)["choices"][0]["message"]["tool_calls"]


def test_tool_calls_are_joined_by_index() -> None:
    calls = joined_calls(
        [{"index": 1} | call(id="b")],
        [{"index": 0} | call(id="a")],
        [{"index": 0, "function": {"arguments": '{"x"'}}],
        [{"index": 1, "function": {"arguments": "{}"}}, {"index": 0, "function": {"arguments": ":1}"}}],
    )
    assert [(c["id"], c["function"]["arguments"]) for c in calls] == [("a", '{"x":1}'), ("b", "{}")]
    assert all("index" not in c for c in calls)


def test_vendors_that_repeat_or_do_not_number_tool_calls() -> None:
    repeated = joined_calls([{"index": 0} | call(id="a")], [{"index": 0} | call(id="a")])
    assert repeated == [call(id="a")]
    whole = {"name": "g", "arguments": "{}"}
    for numbering in ({}, {"index": 0}):
        parallel = joined_calls([numbering | call(id="a", function=whole)], [numbering | call(id="b", function=whole)])
        assert [c["id"] for c in parallel] == ["a", "b"]
        assert [c["function"] for c in parallel] == [whole, whole]


def test_text_beyond_the_bound_is_forgotten() -> None:
    stream = b"".join(chunk(says(content="x" * 100)) for _ in range(20)) + STOP + DONE
    assert fed(stream, limit=3000).result() is not None
    read = fed(stream, limit=1000)
    assert (read.result(), read.failure, read.finish_reasons) == (None, "too large", ("stop",))
    calls = [says(tool_calls=[{"index": 0, "function": {"arguments": "x" * 100}}])] * 20
    assert fed(b"".join(map(chunk, calls)) + STOP + DONE, limit=1000).failure == "too large"
    many = b"".join(chunk({"index": n, "delta": {}}) for n in range(20))
    assert fed(many, limit=1000).failure == "too large"


def spaced(template: str) -> list[bytes]:
    return [template.replace("~", space).encode() for space in ("", " ", "  ", "\t")]


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        *zip(
            spaced('data: {"a":1~,~"usage"~:~null}\n\n'), spaced('data: {"a":1}\n\n'), strict=True
        ),
        *zip(
            spaced('data: {"a":1,"usage"~:~null~,"b": "x"}\n\n'), spaced('data: {"a":1~,"b": "x"}\n\n'), strict=True
        ),
        *zip(
            spaced('data: {~"usage"~:~null,~"b":"x"}\n\n'), spaced('data: {~"b":"x"}\n\n'), strict=True
        ),
        (b'data: {"usage":null}\r\n\r\n', b"data: {}\r\n\r\n"),
        (b'data:{"a":1,"usage":null}\n\n', b'data:{"a":1}\n\n'),
        (b'id: 1\ndata: {"a":1,"usage":null}\n\n', b'id: 1\ndata: {"a":1}\n\n'),
        (b'data: {"a":",\\"usage\\":null}","usage":null}\n\n', b'data: {"a":",\\"usage\\":null}"}\n\n'),
        (
            b'data: {"x":{"usage":null,"b":1},"c":"usage","usage":null,"d":["usage"]}\n\n',
            b'data: {"x":{"usage":null,"b":1},"c":"usage","d":["usage"]}\n\n',
        ),
        (b'data: {"a":[1,\ndata: 2],"usage":null}\n\n', b'data: {"a":[1,\ndata: 2]}\n\n'),
        (b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', b""),
        (b'data: {"usage":{"prompt_tokens":1},"choices":[ ]}\r\n\r\n', b""),
    ],
)  # fmt: skip
def test_usage_that_only_the_gateway_asked_for_is_taken_out(raw: bytes, left: bytes) -> None:
    # White space that stood around a comma that is cut may go along; nothing else does.
    assert without_usage(raw).translate(None, b" \t") == left.translate(None, b" \t")
    if left:
        before, after = json.loads(event_data(raw) or b""), json.loads(event_data(without_usage(raw)) or b"")
        assert before == after | {"usage": None}


@pytest.mark.parametrize(
    "raw",
    [
        b"data: [DONE]\n\n",
        b": ping\n\n",
        b'data: {"a":1}\n\n',
        b'data: {"a":",\\"usage\\":null"}\n\n',
        b'data: {"a":"\\",\\"usage\\":null}"}\n\n',
        b'data: {"x_groq":{"id":1,"usage":null}}\n\n',
        b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[],"usage":null,"prompt_filter_results":[]}\n\n'.replace(b'"usage":null,', b""),
        b'data: {broken ,"usage":nul}\n\n',
        b'data: ["usage",null]\n\n',
    ],
)
def test_everything_else_is_left_as_it_is(raw: bytes) -> None:
    assert without_usage(raw) == raw


@given(chat_answers())
def test_a_stream_without_its_usage_is_the_stream_of_who_did_not_ask(answer: dict[str, Any]) -> None:
    body = json.dumps(answer | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
    events = EventScanner().feed(replay("generate", body, include_usage=True))
    assert b"".join(map(without_usage, events)) == replay("generate", body, include_usage=False)


def test_a_stream_whose_events_come_twice_has_no_result() -> None:
    events = [
        b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b"[DONE]",
    ]
    once, twice = StreamAssembler("generate"), StreamAssembler("generate")
    for event in events:
        once.feed(event)
        twice.feed(event)
        twice.feed(event)
    assert once.result() is not None
    assert twice.result() is None


def test_an_end_told_twice_word_for_word_has_no_result() -> None:
    assert assembled(HELLO + STOP + DONE) is not None
    assert assembled(HELLO + STOP + STOP + DONE) is None
    # Some vendors say the reason once more, with the usage.
    assert assembled(HELLO + STOP + chunk(says(finish="stop"), usage={"prompt_tokens": 1}) + DONE) is not None
    # Some open a choice with every chunk that has no text.
    opened = chunk(says(role="assistant", content=""))
    assert assembled(opened + HELLO + STOP + DONE) is not None


WORDS = ("One", " and", " two", ",", " two", " and", " three", ".")


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_a_stream_whose_text_comes_in_pairs_has_no_result(field: str) -> None:
    def pieces(*words: str) -> bytes:
        return b"".join(chunk(says(**{field: word})) for word in words)

    opened, ended = chunk(says(role="assistant", content="")), STOP + DONE
    doubled = [word for word in WORDS for _ in range(2)]
    assert assembled(opened + pieces(*WORDS) + ended) is not None
    assert assembled(opened + pieces(*doubled) + ended) is None
    # By chance: some words twice, a few words, one word over and over.
    assert assembled(opened + pieces(*doubled, "!") + ended) is not None
    assert assembled(opened + pieces(*doubled[:14]) + ended) is not None
    assert assembled(opened + pieces(*["ha"] * 20) + ended) is not None
