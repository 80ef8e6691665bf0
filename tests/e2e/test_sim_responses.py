"""The official `openai` client takes `watchllm sim` for OpenAI's Responses API."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest

from tests.support.product import Sim

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
    {"type": "custom", "name": "write"},
]
CALL_BOTH = "Please call weather and call write."
MODEL = "gpt-5"


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.fixture
def openai_client(sim: Sim) -> Iterator[openai.OpenAI]:
    """The client on the simulator, its own retries off."""
    with openai.OpenAI(base_url=sim.base_url, api_key="any", max_retries=0, timeout=20) as client:
        yield client


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.responses.create(**{"model": MODEL, "input": "What is a gateway?", **fields})


def plain(response: Any) -> dict[str, Any]:
    """A response's output and end without what is new in each."""
    shown = response.to_dict()
    output = [
        {name: value for name, value in item.items() if name not in ("id", "call_id", "parsed_arguments")}
        for item in shown["output"]
    ]
    return {"output": output, "status": shown["status"], "usage": shown["usage"]}


CASES: list[dict[str, Any]] = [
    {},
    {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    {"model": "sim/raw-reasoning+reasoning-9"},
    {"input": CALL_BOTH, "tools": TOOLS},
    {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    {"model": "sim/refusal"},
    {"model": "sim/cite"},
]


@pytest.mark.parametrize("fields", CASES)
def test_the_clients_stream_helper_puts_together_the_whole_response(
    openai_client: openai.OpenAI, fields: dict[str, Any]
) -> None:
    whole = ask(openai_client, **fields)
    with openai_client.responses.stream(**{"model": MODEL, "input": "What is a gateway?", **fields}) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert streamed.output_text == whole.output_text
    assert plain(whole)["usage"] == plain(streamed)["usage"]
    assert [item.type for item in streamed.output] == [item.type for item in whole.output]


@pytest.mark.parametrize(
    "fields", [*CASES, {"model": "sim/tokens-40", "max_output_tokens": 16}, {"model": "sim/failed"}]
)
def test_raw_events_are_the_clients_own_and_numbered(openai_client: openai.OpenAI, fields: dict[str, Any]) -> None:
    events = list(ask(openai_client, stream=True, **fields))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    # An event of a type that the client does not know would be read as another's.
    assert {type(event).__name__ for event in events} >= {"ResponseCreatedEvent", "ResponseInProgressEvent"}
    assert all(event.type.replace(".", "").replace("_", "") in _known() for event in events)
    assert plain(events[-1].response) == plain(ask(openai_client, **fields))


def _known() -> set[str]:
    """The types of event that the client knows, without their separators."""
    from openai.types.responses import response_stream_event

    names = {name for name in vars(response_stream_event) if name.endswith("Event")}
    names = {name.removesuffix("Event").lower() for name in names}
    return names | {name.replace("responsetext", "responseoutputtext") for name in names}


def test_a_tools_round_trip_by_items_and_by_id(openai_client: openai.OpenAI) -> None:
    asked = ask(openai_client, input=CALL_BOTH, tools=TOOLS)
    outputs = [{"type": f"{item.type}_output", "call_id": item.call_id, "output": "12"} for item in asked.output]
    turns = [{"role": "user", "content": CALL_BOTH}, *(item.to_dict() for item in asked.output), *outputs]
    by_items = ask(openai_client, input=turns, tools=TOOLS)
    by_id = ask(openai_client, input=outputs, tools=TOOLS, previous_response_id=asked.id)
    assert by_items.output_text == by_id.output_text != ""


def test_kept_responses(openai_client: openai.OpenAI) -> None:
    made = ask(openai_client)
    assert openai_client.responses.retrieve(made.id) == made
    assert [item.type for item in openai_client.responses.input_items.list(made.id)] == ["message"]
    openai_client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        openai_client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as raised:
        ask(openai_client, previous_response_id=made.id)
    assert raised.value.code == "previous_response_not_found"


def test_parsed_output_whole_and_streamed(openai_client: openai.OpenAI) -> None:
    parsed = openai_client.responses.parse(model=MODEL, input="Who?", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    with openai_client.responses.stream(model=MODEL, input="Who?", text_format=Person) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def test_async(sim: Sim) -> None:
    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=sim.base_url, api_key="any", max_retries=0, timeout=20) as client:
            whole = await client.responses.create(model=MODEL, input="Hi")
            async with client.responses.stream(model=MODEL, input="Hi") as stream:
                final = await stream.get_final_response()
            assert final.output_text == whole.output_text

    asyncio.run(use())


def test_errors_are_the_clients_own(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError):
        ask(openai_client, model="sim/status-429")
    with pytest.raises(openai.BadRequestError) as raised:
        ask(openai_client, background=True)
    assert raised.value.param == "background"
    events = list(ask(openai_client, model="sim/stream-error-3", stream=True))
    assert [event.type for event in events][-1] == "error"
    assert events[-1].sequence_number == 3


def test_a_stream_split_at_every_byte_is_the_same_stream(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(model="sim/echo+split", input="日本語 café") as stream:
        assert stream.get_final_response().output_text == "日本語 café"
