"""The official client, over a socket, takes the simulator for OpenAI."""

import asyncio
from collections.abc import Awaitable, Callable

import openai
import pydantic
import pytest

from watchllm.sim.app import SimApp, SimOptions
from watchllm.wire.server import serve


class Step(pydantic.BaseModel):
    title: str
    minutes: int


class Plan(pydantic.BaseModel):
    steps: list[Step]
    note: str | None


def with_client(use: Callable[[openai.AsyncOpenAI, SimApp], Awaitable[None]]) -> None:
    async def run() -> None:
        app = SimApp(SimOptions(require_key="sk-sim"))
        server = await serve(app)
        base_url = f"http://127.0.0.1:{server.port}/v1"
        try:
            async with openai.AsyncOpenAI(api_key="sk-sim", base_url=base_url, max_retries=0, timeout=20) as client:
                await use(client, app)
        finally:
            await server.close()

    asyncio.run(run())


def test_chat_whole_and_streamed() -> None:
    async def use(client: openai.AsyncOpenAI, _app: SimApp) -> None:
        whole = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
        stream = await client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage

    with_client(use)


def test_parsed_output_and_tools() -> None:
    async def use(client: openai.AsyncOpenAI, _app: SimApp) -> None:
        parsed = await client.chat.completions.parse(
            model="gpt-4o", messages=[{"role": "user", "content": "Plan"}], response_format=Plan
        )
        assert isinstance(parsed.choices[0].message.parsed, Plan)
        tool = openai.pydantic_function_tool(Step, name="add_step")
        async with client.chat.completions.stream(
            model="gpt-4o", messages=[{"role": "user", "content": "Please call add_step"}], tools=[tool]
        ) as stream:
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert calls
        assert isinstance(calls[0].function.parsed_arguments, Step)

    with_client(use)


def test_embeddings_files_audio_and_models() -> None:
    async def use(client: openai.AsyncOpenAI, _app: SimApp) -> None:
        # The client asks for base64 by itself and decodes it.
        vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=16)
        assert [len(item.embedding) for item in vectors.data] == [16, 16]
        transcript = await client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"x" * 300_000))
        assert "300000 bytes" in transcript.text
        uploaded = await client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        assert (await client.files.content(uploaded.id)).read() == b"{}"
        spoken = await client.audio.speech.create(model="tts-1", input="hello", voice="alloy")
        assert len(spoken.content) > 1000
        assert [model.id async for model in client.models.list()]
        assert (await client.moderations.create(input="fine")).results[0].flagged is False

    with_client(use)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("sim/status-429", openai.RateLimitError),
        ("sim/status-500", openai.InternalServerError),
        ("sim/status-404", openai.NotFoundError),
        ("sim/reset", openai.APIConnectionError),
        ("sim/cut-1", openai.APIConnectionError),
    ],
)
def test_failures_are_the_clients_own_errors(model: str, error: type[Exception]) -> None:
    async def use(client: openai.AsyncOpenAI, _app: SimApp) -> None:
        with pytest.raises(error):
            await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])

    with_client(use)


def test_a_client_that_leaves_counts_as_cancelled() -> None:
    async def use(client: openai.AsyncOpenAI, app: SimApp) -> None:
        stream = await client.chat.completions.create(
            model="sim/stall-2", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        await anext(aiter(stream))
        assert len(app.ledger.open) == 1
        await stream.close()
        async with asyncio.timeout(10):
            while not app.ledger.cancelled:
                await asyncio.sleep(0.005)
        assert not app.ledger.open

    with_client(use)
