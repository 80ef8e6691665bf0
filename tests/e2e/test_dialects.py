"""Three dialects at the door, three behind it: every client gets its own, whoever answers.

`groq` speaks chat completions only, `anthropic` messages only, and `own`, which is the project's, responses only, so a
client of another dialect is translated; what each of them was really sent stands in the simulator's ledger.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from tests.support.product import UPSTREAM_KEY, Gateway, Installation, Project, Sim
from tests.support.waiting import wait_for

PATHS = {"groq": "/v1/chat/completions", "anthropic": "/v1/messages", "own": "/v1/responses"}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def gateway(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = {
        f"{name}_{variable}": value
        for name in ("OPENAI", "GROQ", "ANTHROPIC")
        for variable, value in (("BASE_URL", shared_sim.base_url), ("API_KEY", UPSTREAM_KEY))
    } | {"WATCHLLM_ALLOW_PRIVATE_URLS": "true"}
    installation = Installation(tmp_path_factory.mktemp("dialects") / "home", environment)
    installation.project("first")
    proxy = installation.start_proxy()
    yield proxy
    proxy.stop()


@pytest.fixture
def project(gateway: Gateway, shared_sim: Sim) -> Project:
    project = gateway.installation.project()
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "own", UPSTREAM_KEY, base_url=shared_sim.base_url, dialect="responses")
    return project


@pytest.fixture
def chat(gateway: Gateway, project: Project) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key=project.key, max_retries=0) as client:
        yield client


@pytest.fixture
def messages(gateway: Gateway, project: Project) -> Iterator[anthropic.Anthropic]:
    url = f"http://127.0.0.1:{gateway.port}"
    with anthropic.Anthropic(base_url=url, api_key=project.key, max_retries=0) as client:
        yield client


def last_path(sim: Sim) -> str:
    return str(sim.requests()[-1]["path"])


@pytest.mark.parametrize("provider", PATHS)
class TestEveryClientReachesEveryProvider:
    def test_chat(self, chat: openai.OpenAI, sim: Sim, provider: str) -> None:
        raw = chat.chat.completions.with_raw_response.create(
            model=f"{provider}/echo", messages=[{"role": "user", "content": "Good day"}], max_tokens=50
        )
        answer = raw.parse()
        assert last_path(sim) == PATHS[provider]
        assert raw.headers["x-watchllm-provider"] == provider
        assert answer.object == "chat.completion"
        assert answer.choices[0].message.content == "Good day"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0

    def test_messages(self, messages: anthropic.Anthropic, sim: Sim, provider: str) -> None:
        raw = messages.messages.with_raw_response.create(
            model=f"{provider}/echo",
            messages=[{"role": "user", "content": "Good day"}],
            max_tokens=50,
            system="Be kind.",
        )
        answer = raw.parse()
        assert last_path(sim) == PATHS[provider]
        assert answer.type == "message"
        assert answer.content[0].type == "text"
        assert answer.content[0].text == "Good day"
        assert answer.stop_reason == "end_turn"
        assert answer.usage.input_tokens > 0
        assert answer.usage.output_tokens > 0

    def test_responses(self, chat: openai.OpenAI, sim: Sim, provider: str) -> None:
        answer = chat.responses.create(model=f"{provider}/echo", input="Good day", instructions="Be kind.")
        assert last_path(sim) == PATHS[provider]
        assert answer.object == "response"
        assert answer.status == "completed"
        assert answer.output_text == "Good day"
        assert answer.usage is not None
        assert answer.usage.total_tokens > 0

    @pytest.mark.parametrize("include_usage", [True, False])
    def test_chat_streamed(self, chat: openai.OpenAI, sim: Sim, provider: str, include_usage: bool) -> None:
        options: Any = {"include_usage": True} if include_usage else openai.omit
        with chat.chat.completions.create(
            model=f"{provider}/echo",
            messages=[{"role": "user", "content": "One two three four five"}],
            max_tokens=50,
            stream=True,
            stream_options=options,
        ) as stream:
            chunks = list(stream)
        assert last_path(sim) == PATHS[provider]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "One two three four five"
        assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) > 1
        assert [chunk.usage is not None for chunk in chunks][-1] is include_usage

    def test_messages_streamed(self, messages: anthropic.Anthropic, sim: Sim, provider: str) -> None:
        with messages.messages.stream(
            model=f"{provider}/echo",
            messages=[{"role": "user", "content": "One two three four five"}],
            max_tokens=50,
        ) as stream:
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
        assert last_path(sim) == PATHS[provider]
        assert "".join(pieces) == "One two three four five"
        assert len(pieces) > 1
        assert final.stop_reason == "end_turn"
        assert final.usage.output_tokens > 0
        assert final.usage.input_tokens > 0

    def test_responses_streamed(self, chat: openai.OpenAI, sim: Sim, provider: str) -> None:
        with chat.responses.stream(model=f"{provider}/echo", input="One two three four five") as stream:
            events = list(stream)
            final = stream.get_final_response()
        assert last_path(sim) == PATHS[provider]
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        assert (
            "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text
        )
        assert final.output_text == "One two three four five"

    def test_tools_of_chat(self, chat: openai.OpenAI, provider: str) -> None:
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
        conversation: list[Any] = [{"role": "user", "content": "Please call weather"}]
        first = chat.chat.completions.create(
            model=f"{provider}/echo", messages=conversation, tools=tools, max_tokens=99
        ).choices[0]
        assert first.finish_reason == "tool_calls"
        assert first.message.tool_calls is not None
        call: Any = first.message.tool_calls[0]
        assert call.function.name == "weather"
        assert set(json.loads(call.function.arguments)) == {"city", "days"}
        conversation.append(first.message.model_dump(exclude_none=True))
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
        second = chat.chat.completions.create(
            model=f"{provider}/echo", messages=conversation, tools=tools, tool_choice="none", max_tokens=99
        )
        assert second.choices[0].finish_reason == "stop"

    def test_tools_of_messages(self, messages: anthropic.Anthropic, provider: str) -> None:
        tools: Any = [{"name": "weather", "input_schema": WEATHER}]
        conversation: list[Any] = [{"role": "user", "content": "Please call weather"}]
        with messages.messages.stream(
            model=f"{provider}/echo", messages=conversation, tools=tools, max_tokens=99
        ) as stream:
            first = stream.get_final_message()
        assert first.stop_reason == "tool_use"
        call = next(block for block in first.content if block.type == "tool_use")
        assert call.name == "weather"
        assert isinstance(call.input, dict)
        assert set(call.input) == {"city", "days"}
        conversation.append({"role": "assistant", "content": [block.model_dump() for block in first.content]})
        conversation.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}
        )
        second = messages.messages.create(
            model=f"{provider}/echo", messages=conversation, tools=tools, tool_choice={"type": "none"}, max_tokens=99
        )
        assert second.stop_reason == "end_turn"

    def test_tools_of_responses(self, chat: openai.OpenAI, provider: str) -> None:
        tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
        answer = chat.responses.create(model=f"{provider}/echo", input="Please call weather", tools=tools)
        call = next(item for item in answer.output if item.type == "function_call")
        assert call.name == "weather"
        assert set(json.loads(call.arguments)) == {"city", "days"}

    def test_a_client_finds_its_own_form_of_errors(
        self, chat: openai.OpenAI, messages: anthropic.Anthropic, provider: str
    ) -> None:
        with pytest.raises(openai.RateLimitError) as limited:
            chat.chat.completions.create(
                model=f"{provider}/status-429", messages=[{"role": "user", "content": "x"}], max_tokens=9
            )
        assert isinstance(limited.value.body, dict)
        assert limited.value.body["message"]
        with pytest.raises(anthropic.RateLimitError) as slowed:
            messages.messages.create(
                model=f"{provider}/status-429", messages=[{"role": "user", "content": "x"}], max_tokens=9
            )
        assert isinstance(slowed.value.body, dict)
        assert slowed.value.body["type"] == "error"
        assert slowed.value.body["error"]["type"] == "rate_limit_error"
        with pytest.raises(openai.RateLimitError):
            chat.responses.create(model=f"{provider}/status-429", input="x")


@pytest.mark.parametrize("model", ["sim/echo", "groq/echo", "anthropic/echo", "own/echo"])
def test_one_question_in_three_dialects_is_one_entry(
    chat: openai.OpenAI, messages: anthropic.Anthropic, sim: Sim, model: str
) -> None:
    sim.reset()
    ask: Any = [{"role": "user", "content": f"What is one entry of {model}?"}]
    first = chat.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "system", "content": "Be brief."}, *ask], max_tokens=64
    )
    second = messages.messages.with_raw_response.create(model=model, messages=ask, system="Be brief.", max_tokens=64)
    third = chat.responses.with_raw_response.create(
        model=model, input=ask[0]["content"], instructions="Be brief.", max_output_tokens=64
    )
    found = [raw.headers["x-watchllm-cache"] for raw in (first, second, third)]
    assert found == ["MISS", "HIT", "HIT"]
    block = second.parse().content[0]
    assert block.type == "text"
    texts = {first.parse().choices[0].message.content, block.text, third.parse().output_text}
    assert len(texts) == 1
    with messages.messages.stream(model=model, messages=ask, system="Be brief.", max_tokens=64) as stream:
        assert stream.response.headers["x-watchllm-cache"] == "HIT"
        assert stream.get_final_text() in texts


def test_a_chat_provider_of_ones_own_may_take_the_two_names_of_the_limit_for_two_things(
    gateway: Gateway, project: Project, shared_sim: Sim
) -> None:
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "homely", UPSTREAM_KEY, base_url=shared_sim.base_url, dialect="chat")
    body = {"model": "homely/echo", "messages": [{"role": "user", "content": "How much?"}]}
    found = [
        gateway.post(path, project.key, body | {limit: 64}).header("x-watchllm-cache")
        for path, limit in (
            ("/v1/messages", "max_tokens"),
            ("/v1/chat/completions", "max_tokens"),
            ("/v1/chat/completions", "max_completion_tokens"),
        )
    ]
    assert found == ["MISS", "HIT", "MISS"]


@pytest.mark.parametrize("provider", ["anthropic", "own"])
def test_a_call_without_content_is_one_with_null(gateway: Gateway, project: Project, provider: str) -> None:
    called = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    found = []
    for content in ({}, {"content": None}):
        turns = [
            {"role": "user", "content": "When?"},
            {"role": "assistant", "tool_calls": [called]} | content,
            {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        ]
        tools = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}, "strict": False}}]
        body = {"model": f"{provider}/echo", "messages": turns, "tools": tools, "max_tokens": 64}
        answer = gateway.post("/v1/chat/completions", project.key, body)
        assert answer.status == 200, answer.body
        found.append(answer.header("x-watchllm-cache"))
    assert found == ["MISS", "HIT"]


def test_what_a_translation_would_lose_is_an_entry_of_its_own(
    gateway: Gateway, project: Project, chat: openai.OpenAI
) -> None:
    ask: Any = [{"role": "user", "content": "Apart?"}]
    raw = chat.chat.completions.with_raw_response.create(model="anthropic/echo", messages=ask, max_tokens=64)
    assert raw.headers["x-watchllm-cache"] == "MISS"
    unlike = {"model": "anthropic/echo", "messages": ask, "max_tokens": 64, "top_k": 3}
    headers = {"anthropic-version": "2023-06-01"}
    found = [gateway.post("/v1/messages", project.key, unlike, headers=headers) for _ in range(2)]
    assert [one.header("x-watchllm-cache") for one in found] == ["MISS", "HIT"]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_whose_translation_lost_something_serves_its_own_dialect_only(
    gateway: Gateway, project: Project, streamed: bool
) -> None:
    question = f"What did you think of, {streamed}?"
    asked: dict[str, Any] = {"model": "own/echo", "stream": streamed, "reasoning_effort": "low"}
    chat = asked | {"messages": [{"role": "user", "content": question}]}
    native = {"model": "own/echo", "stream": streamed, "reasoning": {"effort": "low"}, "input": question}
    steps = [("/v1/chat/completions", chat)] * 2 + [("/v1/responses", native)] * 2 + [("/v1/chat/completions", chat)]
    found = [gateway.post(path, project.key, body) for path, body in steps]
    assert [one.header("x-watchllm-cache") for one in found] == ["MISS", "HIT", "MISS", "HIT", "HIT"]
    # A reasoning item without a summary has no form in a chat, but the client of Responses has it.
    assert b'"reasoning"' in found[3].body
    assert b'"type":"reasoning"' in found[3].body.replace(b": ", b":")
    assert b"reasoning_content" not in found[4].body


def test_what_is_kept_of_an_entry_for_one_dialect_goes_with_it(gateway: Gateway, project: Project) -> None:
    writer = gateway.installation.key(project.id, scopes=("inference", "cache:write"))
    asked: dict[str, Any] = {"model": "own/echo", "reasoning_effort": "low"}
    chat = asked | {"messages": [{"role": "user", "content": "What is forgotten?"}]}
    native = {"model": "own/echo", "reasoning": {"effort": "low"}, "input": "What is forgotten?"}
    steps = [("/v1/chat/completions", chat), ("/v1/responses", native)]
    found = [gateway.post(path, project.key, body) for path, body in steps * 2]
    assert [one.header("x-watchllm-cache") for one in found] == ["MISS", "MISS", "HIT", "HIT"]
    named = {"request_id": found[2].header("x-request-id")}
    assert gateway.post("/v1/cache/invalidate", writer, named).json()["invalidated"] == 2
    again = [gateway.post(path, project.key, body).header("x-watchllm-cache") for path, body in steps]
    assert again == ["MISS", "MISS"]


def test_who_waits_for_an_answer_whose_translation_lost_something_asks_in_its_own_dialect(
    gateway: Gateway, project: Project, sim: Sim
) -> None:
    sim.reset()
    chat = {"model": "own/slow-500ms+reasoning-3", "messages": [{"role": "user", "content": "Who thinks?"}]}
    native = {"model": "own/slow-500ms+reasoning-3", "input": "Who thinks?"}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gateway.post, "/v1/chat/completions", project.key, chat)
        wait_for(lambda: sim.calls() == 1, "the first call")
        second = pool.submit(gateway.post, "/v1/responses", project.key, native)
        assert first.result().status == 200
        assert [item["type"] for item in second.result().json()["output"]] == ["reasoning", "message"]
    assert sim.calls() == 2


def test_what_stopped_an_answer_is_told_though_the_cache_has_it_from_chat(
    chat: openai.OpenAI, messages: anthropic.Anthropic
) -> None:
    ask: Any = {"model": "anthropic/echo", "messages": [{"role": "user", "content": "One two three"}], "max_tokens": 64}
    stopped = chat.chat.completions.create(**ask, stop=["two"]).choices[0]
    assert (stopped.finish_reason, stopped.message.content) == ("stop", "One ")
    for cache in ("MISS", "HIT"):
        raw = messages.messages.with_raw_response.create(**ask, stop_sequences=["two"])
        assert raw.headers["x-watchllm-cache"] == cache
        answer = raw.parse()
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "two")


def test_a_field_without_a_counterpart_is_named(chat: openai.OpenAI, messages: anthropic.Anthropic) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(
            model="anthropic/echo", messages=[{"role": "user", "content": "x"}], max_tokens=9, logit_bias={"1": 5}
        )
    assert refused.value.param == "logit_bias"
    with pytest.raises(anthropic.BadRequestError) as other:
        messages.messages.create(
            model="groq/echo", messages=[{"role": "user", "content": "x"}], max_tokens=9, extra_body={"top_k": 3}
        )
    assert "top_k" in str(other.value)


def test_nothing_is_left_with_a_provider_of_responses(
    chat: openai.OpenAI, messages: anthropic.Anthropic, sim: Sim
) -> None:
    ask: Any = [{"role": "user", "content": "Is this kept?"}]
    chat.chat.completions.create(model="own/echo", messages=ask)
    body = json.loads(sim.requests()[-1]["body"])
    assert body == {"model": "echo", "input": "Is this kept?", "store": False}
    messages.messages.create(model="own/echo", messages=ask, max_tokens=33, system="Be kind.")
    body = json.loads(sim.requests()[-1]["body"])
    assert body == {
        "model": "echo",
        "instructions": "Be kind.",
        "input": "Is this kept?",
        "max_output_tokens": 33,
        "store": False,
    }


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_of_messages_that_lets_a_model_think_is_told_the_thoughts(
    messages: anthropic.Anthropic, sim: Sim, streamed: bool
) -> None:
    ask: Any = {
        "model": "own/echo",
        "messages": [{"role": "user", "content": f"What do you think, {streamed}?"}],
        "max_tokens": 4096,
    }
    thinking: Any = {"type": "enabled", "budget_tokens": 2048}
    if streamed:
        with messages.messages.stream(**ask, thinking=thinking) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = messages.messages.create(**ask, thinking=thinking)
    assert json.loads(sim.requests()[-1]["body"])["reasoning"] == {"effort": "low", "summary": "auto"}
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking
    messages.messages.create(**ask, thinking={"type": "adaptive"})
    assert "reasoning" not in json.loads(sim.requests()[-1]["body"])
    messages.messages.create(**ask, thinking=thinking | {"display": "omitted"})
    assert json.loads(sim.requests()[-1]["body"])["reasoning"] == {"effort": "low"}


def test_a_provider_of_responses_has_no_limit_that_the_client_did_not_name(chat: openai.OpenAI) -> None:
    ask: Any = [{"role": "user", "content": "How long?"}]
    # 8192 is what Anthropic would be asked for in place of none.
    found = [
        chat.chat.completions.with_raw_response.create(model="own/echo", messages=ask, max_tokens=limit)
        for limit in (openai.omit, 8192, 8192)
    ]
    assert [raw.headers["x-watchllm-cache"] for raw in found] == ["MISS", "MISS", "HIT"]


def test_a_field_that_responses_do_not_have_is_named(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(model="own/echo", messages=[{"role": "user", "content": "x"}], stop=["END"])
    assert refused.value.param == "stop"


def test_the_dialects_own_headers_go_up_and_no_others(messages: anthropic.Anthropic, sim: Sim) -> None:
    messages.messages.create(
        model="anthropic/echo",
        messages=[{"role": "user", "content": "Headers?"}],
        max_tokens=9,
        extra_headers={"anthropic-beta": "files-api-2025-04-14", "cookie": "a=b", "openai-organization": "org"},
    )
    headers = {name.lower(): value for name, value in dict(sim.requests()[-1]["headers"]).items()}
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["anthropic-beta"] == "files-api-2025-04-14"
    assert headers["x-api-key"] == UPSTREAM_KEY
    assert not {"cookie", "openai-organization", "authorization"} & headers.keys()


def test_the_same_dialect_passes_through_byte_for_byte(gateway: Gateway, project: Project, sim: Sim) -> None:
    body = b'{ "model":"echo",  "max_tokens" : 50,"messages":[{"content":"B\\u00e4r","role":"user"}], "metadata" : {} }'
    gateway.installation.run("project", "set", project.id, "default_provider=anthropic")
    answer = gateway.post("/v1/messages", project.key, body)
    assert answer.status == 200, answer
    received = sim.requests()[-1]
    assert received["path"] == "/v1/messages"
    assert str(received["body"]).encode() == body


def test_tokens_are_counted_by_who_can_and_estimated_for_who_cannot(messages: anthropic.Anthropic, sim: Sim) -> None:
    ask: Any = [{"role": "user", "content": "How many tokens are in here, do you think?"}]
    counted = messages.messages.count_tokens(model="anthropic/echo", messages=ask)
    assert last_path(sim) == "/v1/messages/count_tokens"
    before = sim.calls()
    estimated = messages.messages.count_tokens(model="groq/echo", messages=ask)
    assert sim.calls() == before
    assert abs(counted.input_tokens - estimated.input_tokens) < 12


def test_objects_that_tenants_would_share_need_a_key_of_ones_own(chat: openai.OpenAI) -> None:
    reference = [{"role": "user", "content": "x"}, {"id": "msg_1"}]
    for fields in (
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": reference},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
    ):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            chat.responses.create(model="openai/echo", input="x", extra_body=fields)
        assert refused.value.code == "own_provider_key_required"


def test_requests_at_once_in_different_dialects_make_one_call(gateway: Gateway, project: Project, sim: Sim) -> None:
    import asyncio

    sim.reset()

    async def ask() -> tuple[Any, Any]:
        url = f"http://127.0.0.1:{gateway.port}"
        async with (
            openai.AsyncOpenAI(base_url=gateway.base_url, api_key=project.key) as one,
            anthropic.AsyncAnthropic(base_url=url, api_key=project.key) as other,
        ):
            first = asyncio.ensure_future(
                one.chat.completions.create(
                    model="groq/slow-500ms", messages=[{"role": "user", "content": "At once"}], max_tokens=64
                )
            )
            while sim.calls() == 0:
                await asyncio.sleep(0.01)
            second = await other.messages.create(
                model="groq/slow-500ms", messages=[{"role": "user", "content": "At once"}], max_tokens=64
            )
            return await first, second

    first, second = asyncio.run(ask())
    assert sim.calls() == 1
    assert first.choices[0].message.content == second.content[0].text


def _labels(of: Any) -> tuple[Any, ...]:
    return of["metadata"], of["user"], of["safety_identifier"], of["prompt_cache_key"]


def _labelled(who: str) -> dict[str, Any]:
    return {"metadata": {"who": who}, "user": who, "safety_identifier": who, "prompt_cache_key": who}


def _responses_in(stream: bytes) -> list[Any]:
    events = [json.loads(line[6:]) for line in stream.split(b"\n") if line.startswith(b"data: {")]
    return [event["response"] for event in events if "response" in event]


@pytest.mark.parametrize("model", ["openai/echo", "groq/echo"])
@pytest.mark.parametrize("stored_streamed", [False, True])
def test_a_stored_answer_repeats_the_labels_of_who_asks(
    gateway: Gateway, project: Project, sim: Sim, model: str, stored_streamed: bool
) -> None:
    ask = {"model": model, "input": f"Whose labels? {stored_streamed}", "store": False, "temperature": 0}
    first = gateway.post("/v1/responses", project.key, ask | _labelled("first") | {"stream": stored_streamed})
    assert first.status == 200, first
    assert b'"first"' in first.body
    calls = sim.calls()
    nobody = ({}, None, None, None)
    for fields, labels in ((_labelled("next"), _labels(_labelled("next"))), ({}, nobody)):
        whole = gateway.post("/v1/responses", project.key, ask | fields)
        told = gateway.post("/v1/responses", project.key, ask | fields | {"stream": True})
        assert whole.header("x-watchllm-cache") == told.header("x-watchllm-cache") == "HIT"
        assert _labels(json.loads(whole.body)) == labels
        responses = _responses_in(told.body)
        assert responses
        assert {repr(_labels(response)) for response in responses} == {repr(labels)}
        assert b'"first"' not in whole.body + told.body
    assert sim.calls() == calls


@pytest.mark.parametrize("streamed", [False, True])
def test_who_joins_a_call_is_told_its_own_labels(gateway: Gateway, project: Project, sim: Sim, streamed: bool) -> None:
    from concurrent.futures import ThreadPoolExecutor

    sim.reset()
    ask = {"model": "openai/slow-1s", "input": f"At once? {streamed}", "store": False, "stream": streamed}

    def post(who: str) -> Any:
        return gateway.post("/v1/responses", project.key, ask | _labelled(who))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, ("one", "two", "three", "one")))
    assert sim.calls() == 1
    kinds = sorted(answer.header("x-watchllm-cache") for answer in answers)
    assert kinds == ["HIT-COALESCED"] * 3 + ["MISS"]
    for who, answer in zip(("one", "two", "three", "one"), answers, strict=True):
        assert answer.status == 200, answer
        responses = _responses_in(answer.body) if streamed else [json.loads(answer.body)]
        assert responses
        assert {repr(_labels(response)) for response in responses} == {repr(_labels(_labelled(who)))}
