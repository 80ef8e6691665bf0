"""langchain-openai and langchain-anthropic on the proxy, each before each kind of provider."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from tests.support.product import UPSTREAM_KEY, Gateway, Installation, Project, Sim


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    city: str
    days: int


@pytest.fixture(scope="module")
def gateway(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = {
        f"{name}_{variable}": value
        for name in ("OPENAI", "GROQ", "ANTHROPIC")
        for variable, value in (("BASE_URL", shared_sim.base_url), ("API_KEY", UPSTREAM_KEY))
    }
    installation = Installation(tmp_path_factory.mktemp("langchain") / "home", environment)
    installation.project("first")
    proxy = installation.start_proxy()
    yield proxy
    proxy.stop()


@pytest.fixture(params=["chat", "responses", "messages"])
def client(request: pytest.FixtureRequest) -> str:
    """The dialect that the client speaks."""
    return str(request.param)


@pytest.fixture(params=["openai", "groq", "anthropic"])
def model(gateway: Gateway, project: Project, client: str, request: pytest.FixtureRequest) -> BaseChatModel:
    name, key = f"{request.param}/echo", pydantic.SecretStr(project.key)
    if client == "messages":
        settings: dict[str, Any] = {"model_name": name, "base_url": f"http://127.0.0.1:{gateway.port}"}
        return ChatAnthropic(**settings, api_key=key, max_retries=0, max_tokens_to_sample=500)
    return ChatOpenAI(
        model=name, base_url=gateway.base_url, api_key=key, max_retries=0, use_responses_api=client == "responses"
    )


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all: the libraries share their connections among models."""
    with asyncio.Runner() as runner:
        yield runner


def test_it_invokes_and_streams(model: BaseChatModel) -> None:
    answer = model.invoke("Good day")
    assert answer.text == "Good day"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] > 0
    pieces = [chunk.text for chunk in model.stream("One two three four")]
    assert "".join(pieces) == "One two three four"
    assert len([piece for piece in pieces if piece]) == 4


def test_it_invokes_and_streams_at_the_same_time(model: BaseChatModel, runner: asyncio.Runner) -> None:
    async def both() -> tuple[str, str]:
        async def streamed() -> str:
            return "".join([chunk.text async for chunk in model.astream("One two")])

        answer, text = await asyncio.gather(model.ainvoke("Three four"), streamed())
        return answer.text, text

    assert runner.run(both()) == ("Three four", "One two")


@pytest.mark.parametrize("streamed", [False, True])
def test_it_calls_tools_and_sends_their_results_back(model: BaseChatModel, client: str, streamed: bool) -> None:
    none: Any = {"type": "none"} if client == "messages" else "none"
    bound = model.bind_tools([Weather])
    question = HumanMessage("Please call Weather")
    first: Any = None
    for piece in bound.stream([question]) if streamed else [bound.invoke([question])]:
        first = piece if first is None else first + piece
    (call,) = first.tool_calls
    assert call["name"] == "Weather"
    Weather(**call["args"])
    result = ToolMessage("It is sunny", tool_call_id=call["id"])
    second = model.bind_tools([Weather], tool_choice=none).invoke([question, first, result])
    assert second.text
    assert second.tool_calls == []


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_it_structures_output(model: BaseChatModel, method: str) -> None:
    structured = model.with_structured_output(Weather, method=method)
    assert isinstance(structured.invoke("How is it?"), Weather)
