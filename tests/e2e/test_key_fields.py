"""What makes two requests different for the cache, and what does not (contract, section 6, "Exact")."""

from typing import Any

import pytest

from tests.support.product import Gateway, Project, Sim

CHAT = "/v1/chat/completions"
Fields = dict[str, Any]


def user(content: Any, **more: Any) -> Fields:
    return {"role": "user", "content": content, **more}


def ask(**fields: Any) -> Fields:
    return {"model": "gpt-4o-mini", "messages": [user("How are you?")], **fields}


def talk(*messages: Fields) -> Fields:
    return {"model": "gpt-4o-mini", "messages": list(messages)}


def tool(name: str = "weather", description: str = "d", **properties: Any) -> Fields:
    parameters = {"type": "object", "properties": properties or {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def tool_turn(arguments: str, call_id: str = "call_1", result: str = "12") -> Fields:
    call = {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return talk(
        user("How warm is it?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    )


def schema(*names: str) -> Fields:
    properties = {name: {"type": "string"} for name in names}
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object", "properties": properties}},
    }


def image(data: str, detail: str = "low") -> Fields:
    url = {"url": f"data:image/png;base64,{data}", "detail": detail}
    return talk(user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": url}]))


TOOLS = [tool()]

DIFFERENT: dict[str, tuple[Fields, Fields]] = {
    "max_tokens set": (ask(), ask(max_tokens=50)),
    "max_tokens": (ask(max_tokens=5), ask(max_tokens=6)),
    "max_completion_tokens": (ask(max_completion_tokens=5), ask(max_completion_tokens=6)),
    "temperature": (ask(temperature=0), ask(temperature=0.1)),
    "top_p": (ask(top_p=0.5), ask(top_p=0.6)),
    "stop": (ask(stop="a"), ask(stop="b")),
    "stop with a delimiter": (ask(stop=["a", "b"]), ask(stop=["a|b"])),
    "stop with a comma": (ask(stop=["a", "b"]), ask(stop=["a,b"])),
    "stop that imitates JSON": (ask(stop=["a", "b"]), ask(stop=['a","b'])),
    "order of stops": (ask(stop=["a", "b"]), ask(stop=["b", "a"])),
    "seed": (ask(seed=1), ask(seed=2)),
    "big seed": (ask(seed=9007199254740992), ask(seed=9007199254740993)),
    "n": (ask(n=1), ask(n=2)),
    "presence_penalty": (ask(presence_penalty=0.1), ask(presence_penalty=0.2)),
    "frequency_penalty": (ask(frequency_penalty=0.1), ask(frequency_penalty=0.2)),
    "logprobs": (ask(), ask(logprobs=True)),
    "top_logprobs": (ask(logprobs=True, top_logprobs=1), ask(logprobs=True, top_logprobs=2)),
    "logit_bias": (ask(logit_bias={"50256": -100}), ask(logit_bias={"50256": 100})),
    "logit_bias of another token": (ask(logit_bias={"1": 1}), ask(logit_bias={"2": 1})),
    "reasoning_effort": (ask(reasoning_effort="low"), ask(reasoning_effort="high")),
    "verbosity": (ask(verbosity="low"), ask(verbosity="high")),
    "service_tier": (ask(), ask(service_tier="flex")),
    "modalities": (ask(modalities=["text"]), ask(modalities=["text", "audio"])),
    "prediction": (
        ask(prediction={"type": "content", "content": "a"}),
        ask(prediction={"type": "content", "content": "b"}),
    ),
    "response_format": (ask(), ask(response_format={"type": "json_object"})),
    "response_format schema": (ask(response_format=schema("a")), ask(response_format=schema("b"))),
    "order of a schema's properties": (ask(response_format=schema("a", "b")), ask(response_format=schema("b", "a"))),
    "tools": (ask(), ask(tools=TOOLS)),
    "tool name": (ask(tools=[tool("a")]), ask(tools=[tool("b")])),
    "tool description": (ask(tools=[tool(description="a")]), ask(tools=[tool(description="b")])),
    "tool parameters": (ask(tools=[tool(a={"type": "string"})]), ask(tools=[tool(a={"type": "number"})])),
    "order of a tool's parameters": (ask(tools=[tool(a={}, b={})]), ask(tools=[tool(b={}, a={})])),
    "order of tools": (ask(tools=[tool("a"), tool("b")]), ask(tools=[tool("b"), tool("a")])),
    "tool_choice": (ask(tools=TOOLS, tool_choice="auto"), ask(tools=TOOLS, tool_choice="none")),
    "tool_choice by name": (
        ask(tools=TOOLS, tool_choice="required"),
        ask(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "weather"}}),
    ),
    "parallel_tool_calls": (ask(tools=TOOLS), ask(tools=TOOLS, parallel_tool_calls=False)),
    "assistant tool_calls": (tool_turn('{"city":"Oslo"}'), tool_turn('{"city":"Rome"}')),
    "assistant tool_call id": (tool_turn("{}", "call_1"), tool_turn("{}", "call_2")),
    "tool result": (tool_turn("{}", result="12"), tool_turn("{}", result="13")),
    "image bytes": (image("iVBORw0KGgo="), image("iVBORw0KGgp=")),
    "image detail": (image("iVBORw0KGgo="), image("iVBORw0KGgo=", "high")),
    "message boundaries": (talk(user("a"), user("b")), talk(user("ab"))),
    "message boundaries by line": (talk(user("a"), user("b")), talk(user("a\nb"))),
    "part boundaries": (
        talk(user([{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}])),
        talk(user([{"type": "text", "text": "a"}, {"type": "text", "text": "bc"}])),
    ),
    "parts that imitate a text": (talk(user("a|b")), talk(user([{"type": "text", "text": t} for t in "ab"]))),
    "order of messages": (talk(user("a"), user("b")), talk(user("b"), user("a"))),
    "name": (talk(user("Hi", name="ann")), talk(user("Hi", name="bob"))),
    "system prompt": (
        talk({"role": "system", "content": "Be kind."}, user("Hi")),
        talk({"role": "system", "content": "Be rude."}, user("Hi")),
    ),
    "role": (
        talk({"role": "system", "content": "Be kind."}, user("Hi")),
        talk({"role": "developer", "content": "Be kind."}, user("Hi")),
    ),
    "letter case": (talk(user("Translate into Polish")), talk(user("Translate into polish"))),
    "punctuation": (talk(user("Really?")), talk(user("Really!"))),
    "white space": (talk(user("a b")), talk(user("a  b"))),
    "leading white space": (talk(user("def f():")), talk(user("    def f():"))),
    "list or text": (talk(user('["a","b"]')), talk(user("a|b"))),
    "number or text": (ask(new_field=1), ask(new_field="1")),
    "number or truth": (ask(new_field=1), ask(new_field=True)),
    "null or nothing": (ask(), ask(new_field=None)),
    "unknown field": (ask(new_field={"a": [1]}), ask(new_field={"a": [2]})),
    "model": (ask(), ask(model="gpt-4o")),
    "provider": (ask(), ask(model="sim/gpt-4o-mini")),
}


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_can_change_the_answer_is_another_question(
    gateway: Gateway, sim: Sim, project: Project, change: str
) -> None:
    for body in DIFFERENT[change]:
        answer = gateway.post(CHAT, project.key, body)
        assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, "MISS"), answer
    for body in DIFFERENT[change]:
        assert gateway.post(CHAT, project.key, body).header("X-WatchLLM-Cache") == "HIT"


HEADERS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "anthropic-version": ({"anthropic-version": "2023-06-01"}, {"anthropic-version": "2024-01-01"}),
    "anthropic-beta": ({}, {"anthropic-beta": "tools-2024-04-04"}),
    "openai-beta": ({"OpenAI-Beta": "assistants=v1"}, {"OpenAI-Beta": "assistants=v2"}),
    "user in scope user": (
        {"X-WatchLLM-Cache-Scope": "user", "X-WatchLLM-User": "ann"},
        {"X-WatchLLM-Cache-Scope": "user", "X-WatchLLM-User": "bob"},
    ),
    "scope": ({"X-WatchLLM-User": "ann"}, {"X-WatchLLM-Cache-Scope": "user", "X-WatchLLM-User": "ann"}),
}


@pytest.mark.parametrize("change", HEADERS)
def test_headers_that_can_change_the_answer(gateway: Gateway, sim: Sim, project: Project, change: str) -> None:
    for headers in HEADERS[change]:
        assert gateway.chat(project.key, "Hello", headers=headers).header("X-WatchLLM-Cache") == "MISS"
    for headers in HEADERS[change]:
        assert gateway.chat(project.key, "Hello", headers=headers).header("X-WatchLLM-Cache") == "HIT"


def test_the_query_string_can_change_the_answer_and_reaches_the_provider(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    for query in ("?api-version=1", "?api-version=2", ""):
        answer = gateway.post(CHAT + query, project.key, ask())
        assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, "MISS")
    assert [request["query"] for request in sim.requests()] == ["api-version=1", "api-version=2", ""]


def test_endpoint_families_do_not_share(gateway: Gateway, sim: Sim, project: Project) -> None:
    body = {"model": "gpt-4o-mini", "messages": [user("Hi")], "prompt": "Hi", "input": "Hi"}
    for path in (CHAT, "/v1/completions", "/v1/embeddings"):
        answer = gateway.post(path, project.key, body)
        assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, "MISS"), answer
    assert sim.calls() == 3


def test_a_provider_key_that_points_elsewhere_is_another_question(
    open_gateway: Gateway, sim: Sim, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = open_gateway.installation
    project = home.project("base url")
    answers = []
    # One server under three base URLs: what matters is where the call goes.
    for base in (None, f"http://127.0.0.1:{sim.port}", f"http://localhost:{sim.port}/v1"):
        if base is not None:
            with home.control_plane() as plane:
                plane.add_provider_key(project.id, "openai", "sk-own-secret-0123456789", base_url=base)
        answers.append(open_gateway.chat(project.key, "Where?"))
        with home.control_plane() as plane:
            for key in plane.provider_keys(project.id):
                plane.remove_provider_key(key.id)
    assert [answer.header("X-WatchLLM-Cache") for answer in answers] == ["MISS"] * 3
    assert [request["path"] for request in sim.requests()] == [
        "/v1/chat/completions", "/chat/completions", "/v1/chat/completions",
    ]  # fmt: skip
    assert open_gateway.chat(project.key, "Where?").header("X-WatchLLM-Cache") == "HIT"


_NULLS = ("tools", "tool_choice", "response_format", "parallel_tool_calls", "functions", "function_call")


@pytest.mark.parametrize(("provider", "again"), [("groq", "HIT"), ("openai", "MISS")])
def test_null_is_left_out_where_the_provider_documents_it_so(
    open_gateway: Gateway, sim: Sim, provider: str, again: str
) -> None:
    home = open_gateway.installation
    project = home.project("nulls")
    with home.control_plane() as plane:
        plane.add_provider_key(project.id, provider, "sk-own-secret-0123456789", base_url=sim.base_url)
    body = {"model": f"{provider}/some-model", "messages": [user("Null?")]}
    assert open_gateway.post(CHAT, project.key, body).header("X-WatchLLM-Cache") == "MISS"
    for field in _NULLS:
        answer = open_gateway.post(CHAT, project.key, body | {field: None})
        assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, again), field
    streamed = open_gateway.post(CHAT, project.key, body | {"stream_options": None})
    assert streamed.header("X-WatchLLM-Cache") == "HIT"


def raw(text: str) -> bytes:
    return text.encode()


_FIRST = raw('{"model":"gpt-4o-mini","temperature":0,"seed":7,"messages":[{"role":"user","content":"café\\nau lait"}]}')

SAME: dict[str, bytes] = {
    "order of keys": raw(
        '{"messages":[{"content":"café\\nau lait","role":"user"}],"seed":7,"temperature":0,"model":"gpt-4o-mini"}'
    ),
    "white space of the JSON": raw(
        '{ "model" : "gpt-4o-mini", "temperature": 0 , "seed":7,\n "messages":[{"role":"user","content":'
        '"café\\nau lait"}]}'
    ),
    "number spelling": _FIRST.replace(b'"temperature":0,"seed":7', b'"temperature":0.0,"seed":7.0'),
    "exponents": _FIRST.replace(b'"seed":7', b'"seed":70e-1'),
    "composition": _FIRST.replace("é".encode(), "e\u0301".encode()),
    "escapes": _FIRST.replace("é".encode(), b"\\u00e9"),
    "line ends": _FIRST.replace(b"\\n", b"\\r\\n"),
    "one text part": _FIRST.replace('"café\\nau lait"'.encode(), '[{"type":"text","text":"café\\nau lait"}]'.encode()),
    "provider prefix": _FIRST.replace(b"gpt-4o-mini", b"openai/gpt-4o-mini"),
    "stream": _FIRST[:-1] + b',"stream":true}',
    "stream false": _FIRST[:-1] + b',"stream":false}',
    "stream_options": _FIRST[:-1] + b',"stream":true,"stream_options":{"include_usage":true}}',
    "user": _FIRST[:-1] + b',"user":"ann"}',
    "metadata": _FIRST[:-1] + b',"metadata":{"a":"b"}}',
    "safety_identifier": _FIRST[:-1] + b',"safety_identifier":"x"}',
    "prompt_cache_key": _FIRST[:-1] + b',"prompt_cache_key":"x"}',
    "declared default": _FIRST[:-1] + b',"n":1,"top_p":1.0,"presence_penalty":0,"response_format":{"type":"text"}}',
    "null where it means nothing": _FIRST[:-1] + b',"stop":null,"max_tokens":null}',
}


@pytest.mark.parametrize("change", SAME)
def test_what_cannot_change_the_answer_is_the_same_question(
    gateway: Gateway, sim: Sim, project: Project, change: str
) -> None:
    assert SAME[change] != _FIRST
    first = gateway.post(CHAT, project.key, _FIRST)
    again = gateway.post(CHAT, project.key, SAME[change])
    assert [first.header("X-WatchLLM-Cache"), again.header("X-WatchLLM-Cache")] == ["MISS", "HIT"], again
    assert sim.calls() == 1
