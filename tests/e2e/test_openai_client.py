"""The official `openai` client on the proxy: a developer changes the base URL and the key, and nothing else."""

import asyncio
import time
from typing import Any

import openai
import pydantic
import pytest

from tests.support.product import Gateway, Project, Sim
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.waiting import wait_for

ASK: list[Any] = [{"role": "user", "content": "What is a gateway?"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
            },
        },
    },
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}},
]
CALL_BOTH: list[Any] = [{"role": "user", "content": "Please call weather and call time."}]


class Person(pydantic.BaseModel):
    name: str
    age: int
    tags: list[str]


def cache_of(raw: Any) -> str | None:
    found: str | None = raw.headers.get("x-watchllm-cache")
    return found


def streamed(client: openai.OpenAI, **fields: Any) -> tuple[str | None, list[Any]]:
    """How the cache took part, and all chunks."""
    raw = client.chat.completions.with_raw_response.create(stream=True, **fields)
    return cache_of(raw), list(raw.parse())


def texts(chunks: list[Any]) -> dict[int, str]:
    """The text of each choice."""
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            found[choice.index] = found.get(choice.index, "") + (choice.delta.content or "")
    return found


# --- chat ------------------------------------------------------------------------------------------------------------


def test_the_second_identical_call_is_a_hit(client: openai.OpenAI, sim: Sim) -> None:
    answers = [
        client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK, temperature=0)
        for _ in range(2)
    ]
    assert [cache_of(answer) for answer in answers] == ["MISS", "HIT"]
    first, second = (answer.parse() for answer in answers)
    assert first == second
    assert first.choices[0].message.content
    assert first.usage is not None
    assert first.usage.total_tokens > 0
    assert sim.calls() == 1


@pytest.mark.parametrize("include_usage", [None, False, True])
@pytest.mark.parametrize("choices", [1, 3])
def test_a_cached_stream_is_the_stream(
    client: openai.OpenAI, sim: Sim, include_usage: bool | None, choices: int
) -> None:
    fields: dict[str, Any] = {"model": "gpt-4o-mini", "messages": ASK, "n": choices}
    if include_usage is not None:
        fields["stream_options"] = {"include_usage": include_usage}
    (was, first), (is_now, second) = streamed(client, **fields), streamed(client, **fields)
    assert (was, is_now) == ("MISS", "HIT")
    assert texts(first) == texts(second)
    assert sorted(texts(first)) == list(range(choices))
    assert all(texts(first).values())
    for chunks in (first, second):
        finished = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        assert finished == ["stop"] * choices
        usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
        assert len(usages) == (1 if include_usage else 0)
        assert all(chunk.choices or include_usage for chunk in chunks)
        assert {chunk.id for chunk in chunks} == {first[0].id}
    assert [chunk.usage for chunk in first if chunk.usage] == [chunk.usage for chunk in second if chunk.usage]
    assert sim.calls() == 1


@pytest.mark.parametrize("first_streams", [False, True])
def test_a_stream_answers_a_call_without_and_the_reverse(client: openai.OpenAI, sim: Sim, first_streams: bool) -> None:
    def whole() -> tuple[str | None, str | None]:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK)
        return cache_of(raw), raw.parse().choices[0].message.content

    def stream() -> tuple[str | None, str | None]:
        cache, chunks = streamed(client, model="gpt-4o-mini", messages=ASK)
        return cache, texts(chunks)[0]

    first, second = (stream(), whole()) if first_streams else (whole(), stream())
    assert (first[0], second[0]) == ("MISS", "HIT")
    assert first[1] == second[1]
    assert sim.calls() == 1


def test_tools_whole_and_streamed(client: openai.OpenAI, sim: Sim) -> None:
    fields: dict[str, Any] = {"model": "gpt-4o-mini", "messages": CALL_BOTH, "tools": TOOLS}
    whole = client.chat.completions.create(**fields)
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls if call.type == "function"] == ["weather", "time"]
    for expected in ("HIT", "HIT"):
        cache, chunks = streamed(client, **fields)
        assert cache == expected
        collected: dict[int, list[str]] = {}
        for chunk in chunks:
            for delta in chunk.choices[0].delta.tool_calls or ():
                entry = collected.setdefault(delta.index, ["", "", ""])
                entry[0] += delta.id or ""
                entry[1] += delta.function.name or ""
                entry[2] += delta.function.arguments or ""
        assert list(collected.values()) == [
            [call.id, call.function.name, call.function.arguments] for call in calls if call.type == "function"
        ]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_clients_own_stream_helper_reads_hits_and_misses(client: openai.OpenAI, sim: Sim) -> None:
    contents = []
    for _ in range(2):
        with client.chat.completions.stream(model="gpt-4o-mini", messages=CALL_BOTH, tools=TOOLS) as stream:
            kinds = {event.type for event in stream}
            contents.append(stream.get_final_completion().choices[0].message)
        assert "tool_calls.function.arguments.done" in kinds
    assert contents[0] == contents[1]
    assert sim.calls() == 1


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(client: openai.OpenAI, sim: Sim, stream: bool) -> None:
    people = []
    for _ in range(2):
        if stream:
            with client.chat.completions.stream(model="gpt-4o-mini", messages=ASK, response_format=Person) as running:
                people.append(running.get_final_completion().choices[0].message.parsed)
        else:
            answer = client.chat.completions.parse(model="gpt-4o-mini", messages=ASK, response_format=Person)
            people.append(answer.choices[0].message.parsed)
    assert isinstance(people[0], Person)
    assert people[0] == people[1]
    assert sim.calls() == 1


def test_async(gateway: Gateway, project: Project, sim: Sim) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=project.key, max_retries=0) as client:
            whole = await client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
            text = ""
            async for chunk in await client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True):
                text += chunk.choices[0].delta.content or ""
            many = await asyncio.gather(
                *(client.chat.completions.create(model="gpt-4o-mini", messages=ASK) for _ in range(50))
            )
            assert {answer.id for answer in many} == {whole.id}
        return str(whole.choices[0].message.content), text

    whole, text = asyncio.run(ask())
    assert whole == text
    assert sim.calls() == 1


# --- the other endpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client: openai.OpenAI, sim: Sim, stream: bool) -> None:
    found = []
    for _ in range(2):
        answer: Any = client.completions.create(
            model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=30, stream=stream
        )
        found.append("".join(part.choices[0].text for part in answer) if stream else answer.choices[0].text)
    assert found[0]
    assert found[0] == found[1]
    assert sim.calls() == 1


def test_embeddings(client: openai.OpenAI, sim: Sim) -> None:
    def embed(**fields: Any) -> tuple[str | None, list[list[float]]]:
        raw = client.embeddings.with_raw_response.create(
            model="text-embedding-3-small", input=["one", "two"], dimensions=64, **fields
        )
        return cache_of(raw), [item.embedding for item in raw.parse().data]

    # The client asks for base64 unless told otherwise, and decodes it.
    (miss, packed), (hit, again) = embed(), embed()
    assert (miss, hit) == ("MISS", "HIT")
    assert packed == again
    assert [len(vector) for vector in packed] == [64, 64]
    assert packed[0] != packed[1]
    _, floats = embed(encoding_format="float")
    for vector, other in zip(packed, floats, strict=True):
        assert vector == pytest.approx(other, abs=1e-6)
    assert all("base64" in call["body"] for call in sim.requests()[:1])


def test_models(client: openai.OpenAI, sim: Sim) -> None:
    names = {model.id for model in client.models.list()}
    assert {"gpt-4o-mini", "gpt-4o", "sim/echo", "text-embedding-3-small"} <= names
    assert not [name for name in names if name.startswith(("claude", "llama", "groq/", "openrouter/"))]
    assert client.models.retrieve("gpt-4o-mini").owned_by == "openai"
    assert client.models.retrieve("openai/gpt-4o-mini").id == "openai/gpt-4o-mini"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("mystery-1")


def test_what_the_proxy_does_not_know_passes_through(client: openai.OpenAI, sim: Sim) -> None:
    assert client.moderations.create(input="Be nice").results[0].flagged is False
    speech = client.audio.speech.create(model="tts-1", voice="alloy", input="Hi").content
    assert speech[:4] == b"\xff\xf3\xe4\xc4"
    assert client.audio.transcriptions.create(model="whisper-1", file=("a.wav", speech)).text.startswith("Transcript")
    assert client.images.generate(model="gpt-image-1", prompt="A cat").data


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("gpt-4o-mini+status-400", openai.BadRequestError, None),
        ("mystery-1", openai.NotFoundError, "model_not_found"),
        ("llama-3.1-8b-instant", openai.PermissionDeniedError, "provider_key_missing"),
        ("gpt-4o-mini+status-404", openai.NotFoundError, None),
        ("gpt-4o-mini+status-409", openai.ConflictError, None),
        ("gpt-4o-mini+status-422", openai.UnprocessableEntityError, None),
        ("gpt-4o-mini+status-429", openai.RateLimitError, None),
        ("gpt-4o-mini+status-500", openai.InternalServerError, None),
        ("gpt-4o-mini+status-503", openai.InternalServerError, None),
        ("gpt-4o-mini+status-401", openai.InternalServerError, "provider_auth_failed"),
        ("gpt-4o-mini+reset", openai.InternalServerError, "provider_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_of_the_clients_own_classes(
    client: openai.OpenAI, sim: Sim, model: str, error: type[openai.APIStatusError], code: str | None, stream: bool
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(model=model, messages=ASK, stream=stream)
    assert raised.value.message
    assert raised.value.type
    assert str(raised.value.request_id).startswith("req_")
    if code is not None:
        assert raised.value.code == code


def test_a_wrong_key_and_a_bad_request(gateway: Gateway, client: openai.OpenAI, sim: Sim) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="lgw_proj_wrong").chat.completions.create(model="gpt-4o-mini", messages=ASK)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert raised.value.param == "messages"


def test_a_stream_that_breaks_off_raises(client: openai.OpenAI, sim: Sim) -> None:
    stream = client.chat.completions.create(model="gpt-4o-mini+cut-5", messages=ASK, stream=True)
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert raised.value.code == "provider_error"


def test_the_client_backs_off_as_the_provider_asks(open_gateway: Gateway, sim: Sim) -> None:
    project = open_gateway.installation.project("back-off")
    arrived: list[float] = []

    def refuse_once(call: Call) -> None:
        arrived.append(time.monotonic())
        if len(arrived) == 1:
            call.reply(429, b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}',
                       retry_after="1")  # fmt: skip
        else:
            call.reply(200, b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
                            b'"message":{"role":"assistant","content":"Now."},"finish_reason":"stop"}]}')  # fmt: skip

    with scripted_upstream(refuse_once) as upstream:
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
        with openai.OpenAI(base_url=open_gateway.base_url, api_key=project.key, max_retries=2) as client:
            answer = client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    assert answer.choices[0].message.content == "Now."
    assert len(arrived) == 2
    assert arrived[1] - arrived[0] >= 1.0


def test_a_clients_time_out_ends_the_call_upstream(client: openai.OpenAI, sim: Sim) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1).chat.completions.create(model="gpt-4o-mini+hang", messages=ASK)
    wait_for(lambda: sim.stats()["cancelled"] == 1, "the call's cancellation")
