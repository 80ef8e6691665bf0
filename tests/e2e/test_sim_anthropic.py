"""The official `anthropic` client takes `watchllm sim` for Anthropic."""

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest

from tests.support.product import Sim

ASK: list[Any] = [{"role": "user", "content": "What is a gateway?"}]
TOOLS: list[Any] = [
    {
        "name": "weather",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
    {"name": "time", "input_schema": {"type": "object", "properties": {}}},
]
CALL_BOTH: list[Any] = [{"role": "user", "content": "Please call weather and call time."}]
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}
DOCUMENT: Any = {
    "type": "document",
    "title": "Notes",
    "source": {"type": "text", "media_type": "text/plain", "data": "Grass is green."},
    "citations": {"enabled": True},
}
MODEL = "claude-haiku-4-5"


class Person(pydantic.BaseModel):
    name: str
    age: int


def base_url(sim: Sim) -> str:
    return f"http://127.0.0.1:{sim.port}"


@pytest.fixture
def claude(sim: Sim) -> Iterator[anthropic.Anthropic]:
    """The client on the simulator, its own retries off."""
    with anthropic.Anthropic(base_url=base_url(sim), api_key="any", max_retries=0, timeout=20) as client:
        yield client


def ask(client: anthropic.Anthropic, **fields: Any) -> Any:
    return client.messages.create(**{"model": MODEL, "max_tokens": 2000, "messages": ASK, **fields})


def plain(message: Any) -> dict[str, Any]:
    """A message's content and end without what is new in each."""
    shown = message.to_dict()
    content = [{**block, "id": ""} if "id" in block else block for block in shown["content"]]
    return {"content": content, "stop_reason": shown["stop_reason"], "usage": shown["usage"]}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"thinking": THINKING},
        {"thinking": THINKING, "model": "sim/redacted"},
        {"messages": CALL_BOTH, "tools": TOOLS},
        {"messages": [{"role": "user", "content": [DOCUMENT, {"type": "text", "text": "What colour?"}]}]},
        {"max_tokens": 3},
        {"model": "sim/refusal"},
        {"model": "sim/cite"},
    ],
)
def test_the_clients_stream_helper_puts_together_the_whole_answer(
    claude: anthropic.Anthropic, fields: dict[str, Any]
) -> None:
    whole = ask(claude, **fields)
    with claude.messages.stream(**{"model": MODEL, "max_tokens": 2000, "messages": ASK, **fields}) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_message()
    assert plain(streamed) == plain(whole)
    assert {"message_start", "content_block_start", "content_block_stop", "message_stop"} <= kinds


def test_the_helper_tells_every_kind_of_delta(claude: anthropic.Anthropic) -> None:
    content = [DOCUMENT, {"type": "text", "text": "What colour?"}]
    kinds = set()
    for fields in ({"messages": [{"role": "user", "content": content}]}, {"messages": CALL_BOTH, "tools": TOOLS}):
        with claude.messages.stream(**{"model": MODEL, "max_tokens": 2000, "thinking": THINKING, **fields}) as stream:
            kinds |= {event.type for event in stream}
    assert {"text", "thinking", "signature", "citation", "input_json"} <= kinds


def test_raw_events_come_in_the_references_order(claude: anthropic.Anthropic) -> None:
    kinds = [event.type for event in ask(claude, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_tools_round_trip(claude: anthropic.Anthropic) -> None:
    asked = ask(claude, messages=CALL_BOTH, tools=TOOLS)
    assert asked.stop_reason == "tool_use"
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "12"} for block in asked.content]
    turns = [*CALL_BOTH, {"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
    answered = ask(claude, messages=turns, tools=TOOLS)
    assert answered.stop_reason == "end_turn"
    assert answered.content[0].text


def test_thinking_is_sent_back_with_its_signature(claude: anthropic.Anthropic) -> None:
    thought = ask(claude, thinking=THINKING, messages=CALL_BOTH, tools=TOOLS[1:])
    assert [block.type for block in thought.content] == ["thinking", "tool_use"]
    result = {"type": "tool_result", "tool_use_id": thought.content[1].id, "content": "12:00"}
    turns = [*CALL_BOTH, {"role": "assistant", "content": thought.content}, {"role": "user", "content": [result]}]
    assert ask(claude, messages=turns, tools=TOOLS[1:], thinking=THINKING).content[-1].type == "text"


def test_parsed_output(claude: anthropic.Anthropic) -> None:
    parsed = claude.messages.parse(model=MODEL, max_tokens=2000, messages=ASK, output_format=Person)
    assert isinstance(parsed.parsed_output, Person)


def test_tokens_and_models(claude: anthropic.Anthropic) -> None:
    counted = claude.messages.count_tokens(model=MODEL, messages=CALL_BOTH, tools=TOOLS)
    assert counted.input_tokens == ask(claude, messages=CALL_BOTH, tools=TOOLS).usage.input_tokens
    names = [model.id for model in claude.models.list()]
    assert MODEL in names
    assert claude.models.retrieve(MODEL).type == "model"


def test_prompt_caching(claude: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "x" * 4000, "cache_control": {"type": "ephemeral"}}]
    first, second = (ask(claude, system=system).usage for _ in range(2))
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 0
    assert first.cache_read_input_tokens == second.cache_creation_input_tokens == 0


def test_async(sim: Sim, claude: anthropic.Anthropic) -> None:
    async def use() -> None:
        async with anthropic.AsyncAnthropic(
            base_url=base_url(sim), auth_token="any", api_key=None, max_retries=0, timeout=20
        ) as client:
            whole = await client.messages.create(model=MODEL, max_tokens=2000, messages=ASK)
            async with client.messages.stream(model=MODEL, max_tokens=2000, messages=ASK) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            assert text == whole.content[0].text  # type: ignore[union-attr]

    asyncio.run(use())


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.InternalServerError),
    ],
)
def test_errors_are_the_clients_own(
    claude: anthropic.Anthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(error) as raised:
        ask(claude, model=f"sim/status-{status}")
    assert raised.value.status_code == status
    assert raised.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        ask(claude, extra_body={"temperature": 2})


def test_an_error_inside_a_stream_is_raised(claude: anthropic.Anthropic) -> None:
    for model in ("sim/stream-error-3", "sim/error-200"):
        with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
            list(ask(claude, model=model, stream=True))


def test_a_stream_split_at_every_byte_is_the_same_stream(claude: anthropic.Anthropic) -> None:
    messages = [{"role": "user", "content": "日本語 café"}]
    with claude.messages.stream(model="sim/echo+split", max_tokens=2000, messages=messages) as stream:
        assert stream.get_final_text() == "日本語 café"
    assert ask(claude, model="sim/echo+split", messages=messages).content[0].text == "日本語 café"
