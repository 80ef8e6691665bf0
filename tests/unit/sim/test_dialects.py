"""The same question gets the same words in every dialect: what tests of a cache across dialects compare."""

import json
from typing import Any

import pytest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
VERSION = {b"anthropic-version": b"2023-06-01"}


def chat(sim: Any, **fields: Any) -> str:
    body = {"model": "m", **fields}
    return str(sim.call("/v1/chat/completions", body).json["choices"][0]["message"]["content"])


def messages(sim: Any, **fields: Any) -> str:
    answer = sim.call("/v1/messages", {"model": "m", "max_tokens": 1000, **fields}, headers=VERSION).json
    return "".join(block["text"] for block in answer["content"])


def responses(sim: Any, **fields: Any) -> str:
    answer = sim.call("/v1/responses", {"model": "m", **fields}).json
    return "".join(part["text"] for item in answer["output"] for part in item["content"])


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


PNG = "aGVsbG8="
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "text": (
        {"messages": user("What is a cache?")},
        {"messages": user("What is a cache?")},
        {"input": "What is a cache?"},
    ),
    "system, turns and parameters": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                *user("One"),
                {"role": "assistant", "content": "1"},
                *user("Two"),
            ],
            "temperature": 1,
            "presence_penalty": 0,
            "reasoning_effort": "low",
        },
        {
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [*user("One"), {"role": "assistant", "content": "1"}, *user("Two")],
            "temperature": 1.0,
            "metadata": {"user_id": "u"},
        },
        {
            "instructions": "Be brief.",
            "input": [*user("One"), {"role": "assistant", "content": "1"}, *user("Two")],
            "temperature": 1.0,
            "reasoning": {"effort": "none"},
            "store": False,
        },
    ),
    "an image": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    ],
                }
            ]
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "See"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                }
            ]
        },
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "See"},
                        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                    ],
                }
            ]
        },
    ),
    "tools and their results": (
        {
            "messages": [
                *user("call weather"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "sunny"},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}],
        },
        {
            "messages": [
                *user("call weather"),
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "x", "name": "weather", "input": {"city": "Ulm"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "sunny"}]},
            ],
            "tools": [{"name": "weather", "description": "d", "input_schema": SCHEMA}],
        },
        {
            "input": [
                *user("call weather"),
                {"type": "function_call", "call_id": "y", "name": "weather", "arguments": '{ "city": "Ulm" }'},
                {"type": "function_call_output", "call_id": "y", "output": "sunny"},
            ],
            "tools": [
                {"type": "function", "name": "weather", "description": "d", "parameters": SCHEMA, "strict": False}
            ],
        },
    ),
    "structured output": (
        {
            "messages": user("Where?"),
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        },
        {"messages": user("Where?"), "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {
            "input": user("Where?"),
            "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        },
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_the_same_question_gets_the_same_words(sim: Any, case: str) -> None:
    as_chat, as_messages, as_response = PAIRS[case]
    said = chat(sim, **as_chat)
    assert said
    assert messages(sim, **as_messages) == said
    assert responses(sim, **as_response) == said


def test_different_questions_get_different_words_in_each(sim: Any) -> None:
    for ask, cases in ((chat, 0), (messages, 1), (responses, 2)):
        said = {ask(sim, **fields[cases]) for fields in PAIRS.values()}
        assert len(said) == len(PAIRS)


def test_the_model_is_part_of_the_question_and_its_prefix_and_knobs_are_not(sim: Any) -> None:
    said = chat(sim, messages=user("Hi"))
    assert chat(sim, model="other", messages=user("Hi")) != said
    assert chat(sim, model="sim/m+slow-0", messages=user("Hi")) == said


def test_echo_answers_the_last_user_message_in_each(sim: Any) -> None:
    turns = [*user("first"), {"role": "assistant", "content": "a"}, *user(" odd 日本")]
    assert chat(sim, model="sim/echo", messages=turns) == " odd 日本"
    assert messages(sim, model="sim/echo", messages=turns) == " odd 日本"
    assert responses(sim, model="sim/echo", input=turns) == " odd 日本"


def test_tools_get_the_same_arguments_in_each(sim: Any) -> None:
    tool = {"name": "weather", "description": "d"}
    asked = user("Please call weather.")
    as_chat = sim.chat(
        messages=asked, model="m", tools=[{"type": "function", "function": {**tool, "parameters": SCHEMA}}]
    )
    call = as_chat.json["choices"][0]["message"]["tool_calls"][0]["function"]
    body = {"model": "m", "max_tokens": 9, "messages": asked, "tools": [{**tool, "input_schema": SCHEMA}]}
    as_messages = sim.call("/v1/messages", body, headers=VERSION).json
    (block,) = as_messages["content"]
    body = {"model": "m", "input": asked, "tools": [{"type": "function", **tool, "parameters": SCHEMA}]}
    (item,) = sim.call("/v1/responses", body).json["output"]
    assert json.loads(call["arguments"]) == block["input"] == json.loads(item["arguments"])


# --- knobs -----------------------------------------------------------------------------------------------------------


def ask(sim: Any, dialect: str, *, stream: bool, knobs: str, text: str = "Hello there") -> Any:
    if dialect == "chat":
        return sim.chat(text, stream=stream, knobs=knobs)
    if dialect == "messages":
        body = {"model": "m", "max_tokens": 1000, "messages": user(text), "stream": stream}
        return sim.call("/v1/messages", body, headers=VERSION, knobs=knobs)
    return sim.call("/v1/responses", {"model": "m", "input": text, "stream": stream}, knobs=knobs)


def settled(sim: Any, exchange: Any) -> Any:
    sim.clock.advance(10)
    return exchange


ENDS = {"chat": b"data: [DONE]\n\n", "messages": b"event: message_stop", "responses": b"event: response.completed"}
DIALECTS = tuple(ENDS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_streams_end_can_be_missing_in_each(sim: Any, dialect: str) -> None:
    assert ENDS[dialect] in ask(sim, dialect, stream=True, knobs="").sent
    undone = ask(sim, dialect, stream=True, knobs="no_done")
    assert undone.finished
    assert ENDS[dialect] not in undone.sent


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_can_be_cut_stall_and_end_early_in_each(sim: Any, dialect: str) -> None:
    for knobs in ("cut=3", "stall=3", "short=3"):
        exchange = settled(sim, ask(sim, dialect, stream=True, knobs=knobs))
        assert len(exchange.writes) == 3
        assert ENDS[dialect] not in exchange.sent
        assert (exchange.aborted, exchange.finished) == (knobs == "cut=3", knobs == "short=3")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_events_can_come_twice_in_each(sim: Any, dialect: str) -> None:
    once = ask(sim, dialect, stream=True, knobs="").writes
    third = ask(sim, dialect, stream=True, knobs="duplicate=3").writes
    assert len(third) == len(once) + 1
    assert third[2] == third[3]
    twice = ask(sim, dialect, stream=True, knobs="duplicate").sent
    assert twice.count(ENDS[dialect]) == 2
    assert len(twice) == 2 * sum(map(len, once))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_answer_can_come_in_pieces_of_any_size_in_each(sim: Any, dialect: str, stream: bool) -> None:
    whole = ask(sim, dialect, stream=stream, knobs="echo", text="日本語").sent
    for size in (1, 7):
        split = settled(sim, ask(sim, dialect, stream=stream, knobs=f"echo,split={size}", text="日本語"))
        assert split.finished
        assert len(split.sent) == len(whole)
        assert max(map(len, split.writes[:-1])) == size
        assert "日本語" in split.sent.decode() or stream


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_event_can_be_as_big_as_asked_in_each(sim: Any, dialect: str) -> None:
    streamed = ask(sim, dialect, stream=True, knobs="big=100000")
    assert sum(len(event) > 100_000 for event in streamed.writes) >= 1
    assert len(ask(sim, dialect, stream=False, knobs="big=100000").sent) > 100_000


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_can_come_under_status_200_in_each(sim: Any, dialect: str) -> None:
    whole = ask(sim, dialect, stream=False, knobs="error_200")
    assert whole.status == 200
    assert whole.json["error"]["message"]
    streamed = ask(sim, dialect, stream=True, knobs="error_200")
    assert streamed.status == 200
    assert b"error" in streamed.sent
    assert len(streamed.writes) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_garbage_comes_in_each(sim: Any, dialect: str) -> None:
    for stream in (False, True):
        assert ask(sim, dialect, stream=stream, knobs="html").sent.startswith(b"<!DOCTYPE html>")
        assert ask(sim, dialect, stream=stream, knobs="empty").sent == b""
        wrong = ask(sim, dialect, stream=stream, knobs="wrong_type")
        assert wrong.head_lines("content-type") == ["text/plain"]
        half = ask(sim, dialect, stream=stream, knobs="half_json").sent
        with pytest.raises(json.JSONDecodeError):
            json.loads(half.rpartition(b"data: ")[2])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_status_retries_and_failures_in_each(sim: Any, dialect: str) -> None:
    limited = ask(sim, dialect, stream=True, knobs="status=429,retry_after=2")
    assert limited.status == 429
    assert limited.head_lines("retry-after") == ["2"]
    assert limited.json["error"]["type"] == ("rate_limit_error" if dialect == "messages" else "requests")
    body = {"model": f"{dialect}+fail-1", "max_tokens": 5, "messages": user("Hi")}
    path = {"chat": "chat/completions"}.get(dialect, dialect)
    if dialect == "responses":
        body = {"model": f"{dialect}+fail-1", "input": "Hi"}
    assert [sim.call(f"/v1/{path}", body, headers=VERSION).status for _ in range(2)] == [503, 200]
    hung = ask(sim, dialect, stream=True, knobs="hang")
    assert not settled(sim, hung).status


def test_an_error_inside_a_stream_has_its_dialects_form(sim: Any) -> None:
    chat_error = ask(sim, "chat", stream=True, knobs="stream_error=2").writes[2]
    assert json.loads(chat_error.removeprefix(b"data: "))["error"]["type"] == "server_error"
    name, data = ask(sim, "messages", stream=True, knobs="stream_error=2").writes[2].strip().split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
    }
    name, data = ask(sim, "responses", stream=True, knobs="stream_error=2").writes[2].strip().split(b"\n")
    assert name == b"event: error"
    error = json.loads(data.removeprefix(b"data: "))
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "server_error", 2)
