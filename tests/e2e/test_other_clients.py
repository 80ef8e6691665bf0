"""langchain-openai and curl on the proxy, as their users write it."""

import json
import subprocess

import langchain_core.tools
import pydantic
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.support.product import Gateway, Project, Sim
from tests.support.servers import require_server

QUESTION = "What is a gateway?"


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str
    age: int


@pytest.fixture
def model(gateway: Gateway, project: Project) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-4o-mini",
        base_url=gateway.base_url,
        api_key=pydantic.SecretStr(project.key),
        max_retries=0,
        timeout=20,
    )


def test_langchain_invokes_and_streams(model: ChatOpenAI, sim: Sim) -> None:
    first, second = model.invoke(QUESTION), model.invoke(QUESTION)
    assert first.content
    assert first.content == second.content
    assert sim.calls() == 1
    text = "".join(str(chunk.content) for chunk in model.stream(QUESTION))
    assert text == first.content


def test_langchain_streams_hits_with_usage(model: ChatOpenAI, sim: Sim) -> None:
    streams = [list(model.stream(QUESTION, stream_usage=True)) for _ in range(2)]
    for chunks in streams:
        usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
        assert len(usages) == 1
        assert usages[0]["total_tokens"] > 0
    assert sim.calls() == 1


def test_langchain_calls_tools(model: ChatOpenAI, sim: Sim) -> None:
    @langchain_core.tools.tool
    def weather(city: str) -> str:
        """How the weather is."""
        return city

    bound = model.bind_tools([weather])
    answers = [bound.invoke("Please call weather") for _ in range(2)]
    assert [call["name"] for call in answers[0].tool_calls] == ["weather"]
    assert answers[0].tool_calls == answers[1].tool_calls
    assert sim.calls() == 1


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_structures_output(model: ChatOpenAI, sim: Sim, method: str) -> None:
    structured = model.with_structured_output(Person, method=method)  # type: ignore[arg-type]
    people = [structured.invoke("Who is it? call Person") for _ in range(2)]
    assert isinstance(people[0], Person)
    assert people[0] == people[1]
    assert sim.calls() == 1


def test_langchain_embeds(gateway: Gateway, project: Project, sim: Sim) -> None:
    embeddings = OpenAIEmbeddings(
        model="text-embedding-3-small",
        dimensions=32,
        base_url=gateway.base_url,
        api_key=pydantic.SecretStr(project.key),
        # Otherwise it downloads a tokenizer first.
        check_embedding_ctx_length=False,
    )
    first, second = (embeddings.embed_documents(["one", "two"]) for _ in range(2))
    assert first == second
    assert [len(vector) for vector in first] == [32, 32]
    assert sim.calls() == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--http1.0"], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], ["--compressed"]],
)
def test_curl(gateway: Gateway, project: Project, sim: Sim, arguments: list[str]) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": QUESTION}]})
    command = [
        require_server("curl"), "-sS", "-i", "--max-time", "20", *arguments, f"{gateway.base_url}/chat/completions",
        "-H", f"Authorization: Bearer {project.key}", "-H", "Content-Type: application/json", "-d", body,
    ]  # fmt: skip
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert "200 OK" in outputs[0]
    assert "X-WatchLLM-Cache: MISS" in outputs[0]
    assert "X-WatchLLM-Cache: HIT" in outputs[1]
    assert sim.calls() == 1


def test_curl_streams(gateway: Gateway, project: Project, sim: Sim) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": QUESTION}], "stream": True})
    command = [
        require_server("curl"), "-sS", "-N", "--max-time", "20", f"{gateway.base_url}/chat/completions",
        "-H", f"Authorization: Bearer {project.key}", "--json", body,
    ]  # fmt: skip
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    for output in outputs:
        events = output.strip().split("\n\n")
        assert events[-1] == "data: [DONE]"
        assert all(event.startswith("data: ") for event in events)
        assert len(events) > 5
    assert sim.calls() == 1
