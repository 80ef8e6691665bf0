"""From the Messages API to chat completions and back: what both directions call exact comes back as it was."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.anthropic.messages import messages, scalars, words
from tests.unit.providers.translation.chat_streams import message_of
from watchllm.cache.canonical import canonical_form
from watchllm.domain import json_body
from watchllm.providers.anthropic.replay import replay
from watchllm.providers.translation import (
    answer_chat_to_messages,
    answer_messages_to_chat,
    request_chat_to_messages,
    request_messages_to_chat,
)
from watchllm.providers.translation.stream_chat_to_messages import Translator as ToMessages
from watchllm.providers.translation.stream_messages_to_chat import Translator as ToChat
from watchllm.wire.sse import EventScanner, event_data

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
said = texts.filter(lambda text: text.strip() != "")
inputs = st.dictionaries(words, scalars | st.lists(scalars, max_size=2), max_size=3)

text_blocks = st.builds(lambda text: {"type": "text", "text": text}, said)
images = st.one_of(
    st.just({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}),
    st.just({"type": "url", "url": "https://example.com/a.png"}),
).map(lambda source: {"type": "image", "source": source})
documents = st.one_of(
    st.just({"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}),
    said.map(lambda text: {"type": "text", "media_type": "text/plain", "data": text}),
).map(lambda source: {"type": "document", "source": source, "title": "a title"})
thoughts = st.builds(
    lambda text, signature: {"type": "thinking", "thinking": text, "signature": signature}, said, words
) | words.map(lambda data: {"type": "redacted_thinking", "data": data})


@st.composite
def exchanges(draw: st.DrawFn, number: int) -> list[dict[str, Any]]:
    """What a user asked, what the assistant said and called, and the results."""
    asked = draw(st.lists(st.one_of(text_blocks, images, documents), min_size=2, max_size=3))
    calls = [
        {"type": "tool_use", "id": f"toolu_{number}_{at}", "name": draw(words), "input": draw(inputs)}
        for at in range(draw(st.integers(1, 2)))
    ]
    answered = draw(st.lists(thoughts, max_size=2)) + draw(st.lists(text_blocks, min_size=1, max_size=2)) + calls
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": draw(said)} for call in calls]
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": answered},
        {"role": "user", "content": results + draw(st.lists(text_blocks, min_size=1, max_size=1))},
    ]


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 2))):
        turns += draw(exchanges(number))
    schema = {"type": "object", "properties": draw(st.dictionaries(words, st.just({"type": "string"}), max_size=3))}
    tools = [{"name": "weather", "description": "Tells it", "input_schema": schema}]
    optional = {
        "system": said,
        "temperature": st.sampled_from([0, 0.5]),  # 1 is the default of both, and left out
        "top_p": st.just(0.5),
        "stop_sequences": st.lists(said, min_size=1, max_size=4),
        "tool_choice": st.sampled_from([{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "weather"}]),
        "output_config": st.just({"format": {"type": "json_schema", "schema": schema}}),
        "metadata": words.map(lambda user: {"user_id": user}),
        "stream": st.booleans(),
    }
    document = {"model": "m", "max_tokens": draw(st.integers(1, 9999)), "messages": turns, "tools": tools}
    return document | draw(st.fixed_dictionaries({}, optional=optional))


def blocks(document: dict[str, Any]) -> dict[str, Any]:
    """The request with each content as blocks, however it was written; both ways mean the same."""
    turns = []
    for turn in document["messages"]:
        content = turn["content"]
        turns.append(turn | {"content": [{"type": "text", "text": content}] if type(content) is str else content})
    return document | {"messages": turns}


@given(requests())
def test_a_request_that_is_exact_comes_back_as_it_was(document: dict[str, Any]) -> None:
    there = request_messages_to_chat.translate(document, reasoning_back=True)
    assert (there.exact, there.dropped) == (True, ())
    back = request_chat_to_messages.translate(there.document, max_tokens=1)
    assert blocks(back.document) == blocks(document)


@given(requests())
def test_a_chat_request_keeps_its_canonical_form_by_way_of_messages(document: dict[str, Any]) -> None:
    chat = request_messages_to_chat.translate(document, reasoning_back=True).document
    by_way = request_chat_to_messages.translate(json_body.parse(json.dumps(chat).encode()), max_tokens=1).document
    again = request_messages_to_chat.translate(by_way, reasoning_back=True).document
    assert canonical_form(again, plain=True) == canonical_form(chat, plain=True)


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """What is compared: texts joined, as a chat has only one, and no ids of calls, as repeated ones are replaced."""
    text = "".join([block["text"] for block in message["content"] if block["type"] == "text"])
    others = [block for block in message["content"] if block["type"] != "text"]
    return {
        "text": text,
        "others": [{field: block[field] for field in block if field not in ("caller", "id")} for block in others],
        "head": [message["id"], message["model"]],
        "usage": [message["usage"]["input_tokens"], message["usage"]["output_tokens"]],
    }


answers = st.builds(
    lambda thought, text, given: {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            *([{"type": "thinking", "thinking": thought, "signature": "sig"}] if thought else []),
            *([{"type": "text", "text": text}] if text else []),
            *[
                {"type": "tool_use", "id": f"toolu_{at}", "name": "weather", "input": one}
                for at, one in enumerate(given)
            ],
        ],
        "stop_reason": "tool_use" if given else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "output_tokens": 7,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 3,
        },
    },
    texts,
    texts,
    st.lists(inputs, max_size=2),
)


@given(answers)
def test_an_answer_that_is_exact_comes_back_as_it_was(message: dict[str, Any]) -> None:
    there = answer_messages_to_chat.translate(json.dumps(message).encode())
    back = answer_chat_to_messages.translate(there.body)
    assert there.exact
    assert back.exact
    assert json.loads(back.body) == message


@given(messages())
def test_of_any_answer_that_both_call_exact_nothing_is_lost(message: dict[str, Any]) -> None:
    there = answer_messages_to_chat.translate(json.dumps(message).encode())
    back = answer_chat_to_messages.translate(there.body)
    if there.exact and back.exact:
        assert plain(json.loads(back.body)) == plain(message)


@given(answers)
def test_a_stream_comes_back_as_the_same_message(message: dict[str, Any]) -> None:
    to_chat, to_messages = ToChat(), ToMessages()
    told = b""
    for raw in EventScanner().feed(replay(json.dumps(message).encode())):
        chunks = EventScanner().feed(to_chat.feed(event_data(raw) or b""))
        told += b"".join([to_messages.feed(event_data(chunk) or b"") for chunk in chunks])
    read = message_of(told).model_dump(exclude_none=True)
    for block in read["content"]:
        block.pop("parsed_output", None)
    assert read["content"] == message["content"]
    assert read["stop_reason"] == message["stop_reason"]
    assert read["usage"] == message["usage"]
