"""Contract, section 6, "Exact": what matters to the key and what does not."""

import copy
import json
from typing import Any

import pytest

from watchllm.cache.canonical import MAX_ITEMS, Defaults, canonical_form, embedding_base, embedding_items, is_plain
from watchllm.domain import json_body

DEFAULTS = Defaults(
    {"temperature": 1.0, "n": 1, "logprobs": False, "stop": [], "response_format": {"type": "text", "strict": False}},
    nullable=["temperature", "seed"],
)

BASE: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "polish this: a|b"}],
    "temperature": 0.7,
    "max_tokens": 100,
    "top_p": 0.9,
    "stop": ["a", "b"],
    "seed": 7,
    "tool_choice": "auto",
    "logit_bias": {"50256": -100},
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "description": "d",
                "strict": True,
                "parameters": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "integer"}}},
            },
        }
    ],
}


def form(request: dict[str, Any] | str | bytes) -> bytes:
    body = json.dumps(request).encode() if isinstance(request, dict) else request
    body = body.encode() if isinstance(body, str) else body
    return canonical_form(json_body.parse(body), plain=is_plain(body), defaults=DEFAULTS)


def base(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(BASE) | changes


def said(content: Any, **more: Any) -> dict[str, Any]:
    return base(messages=[{"role": "user", "content": content} | more])


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "letter case": (said("Polish"), said("polish")),
    "list against joined text": (base(stop=["a", "b"]), base(stop="a|b")),
    "list against one text": (base(stop=["a", "b"]), base(stop=["a|b"])),
    "list against written list": (base(stop=["a"]), base(stop='["a"]')),
    "text against its number": (base(seed=7), base(seed="7")),
    "true against 1": (base(n=True), base(n=1)),
    "false against 0": (base(logprobs=False), base(logprobs=0)),
    "null where not declared nullable": (base(top_k=None), base()),
    "empty object against empty list": (base(logit_bias={}), base(logit_bias=[])),
    "space inside text": (said("a b"), said("a  b")),
    "space around text": (said("a"), said("a ")),
    "punctuation": (said("go!"), said("go?")),
    "line end or none": (said("a\n"), said("a")),
    "max_tokens": (base(), base(max_tokens=101)),
    "top_p": (base(), base(top_p=0.91)),
    "order of stop": (base(), base(stop=["b", "a"])),
    "seed": (base(), base(seed=8)),
    "big seeds": (base(seed=2**63), base(seed=2**63 + 1)),
    "no seed": (base(), {k: v for k, v in BASE.items() if k != "seed"}),
    "tool_choice": (base(), base(tool_choice="required")),
    "logit_bias": (base(), base(logit_bias={"50256": -99})),
    "response_format": (base(), base(response_format={"type": "json_object"})),
    "an unknown field": (base(), base(frobnicate=1)),
    "an unknown field of a message": (said("a"), said("a", weight=1)),
    "role": (said("a"), said("a", role="developer")),
    "name": (said("a", name="x"), said("a", name="y")),
    "message boundaries": (
        base(messages=[{"role": "user", "content": "ab"}]),
        base(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
    ),
    "order of messages": (base(), base(messages=BASE["messages"][::-1])),
    "part boundaries": (
        said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        said([{"type": "text", "text": "ab"}]),
    ),
    "a part that says more": (said("a"), said([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])),
    "a part that only looks like text": (said("a"), said([{"type": "text", "text": ["a"]}])),
    "text against the written part": (said('[{"type":"text","text":"a"}]'), said([{"type": "text", "text": "a"}])),
    "image bytes": (
        said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
        said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAB"}}]),
    ),
    "assistant tool_calls": (
        said(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]),
        said(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]),
    ),
    "tool_call_id": (said("r", tool_call_id="1"), said("r", tool_call_id="2")),
    "a message without content": (said(None), base(messages=[{"role": "user"}])),
    "compatibility characters": (said("\ufb01"), said("fi")),
    "no tools against none": (base(tools=[]), base(tools=None)),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_can_change_the_answer_changes_the_form(case: str) -> None:
    one, other = DIFFERENT[case]
    assert form(one) != form(other)


def with_tool(**changes: Any) -> dict[str, Any]:
    request = base()
    request["tools"][0]["function"].update(changes)
    return request


@pytest.mark.parametrize("changes", [{"name": "g"}, {"description": "e"}, {"strict": False}, {"parameters": {}}])
def test_tool_definitions_matter(changes: dict[str, Any]) -> None:
    assert form(with_tool(**changes)) != form(base())


SAME: dict[str, tuple[Any, Any]] = {
    "order of keys": (base(), dict(reversed(BASE.items()))),
    "order of keys inside": (
        base(messages=[{"role": "user", "content": "a"}]),
        base(messages=[{"content": "a", "role": "user"}]),
    ),
    "a text part alone": (said("text"), said([{"type": "text", "text": "text"}])),
    "a text part alone, other order": (said("text"), said([{"text": "text", "type": "text"}])),
    "a declared default": (base(n=1), base()),
    "a declared default that is an object": (base(response_format={"strict": False, "type": "text"}), base()),
    "null where declared nullable": (base(temperature=None), {k: v for k, v in BASE.items() if k != "temperature"}),
    "number spelling": ('{"seed":1e2,"top_p":0.50}', '{"top_p":5e-1,"seed":100}'),
    "number spelling of a default": ('{"temperature":1.00}', "{}"),
    "escapes": (r'{"a":"\u0041\/"}', '{"a":"A/"}'),
    "white space between tokens": ('{ "a" :\r\n 1 }', '{"a":1}'),
    "Unicode composition": (said("e\u0301t\u00e9"), said("\u00e9te\u0301")),
    "Unicode composition, written as such": ('{"a":"e\u0301"}', '{"a":"\u00e9"}'),
    "Unicode composition of keys": ('{"e\u0301":1}', '{"\u00e9":1}'),
    "Unicode composition in schemas": (
        with_tool(parameters={"description": "e\u0301"}),
        with_tool(parameters={"description": "\u00e9"}),
    ),
    "line ends": (said("a\r\nb\rc"), said("a\nb\nc")),
    "the model, which is in the key as resolved": (base(model="openai/m"), base()),
} | {
    f"{field}, which is left out": (base(**{field: value}), base())
    for field, value in {
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
        "metadata": {"a": "b"},
        "safety_identifier": "s",
        "prompt_cache_key": "p",
    }.items()
}


@pytest.mark.parametrize("case", SAME)
def test_what_cannot_change_the_answer_does_not_change_the_form(case: str) -> None:
    one, other = SAME[case]
    assert form(one) == form(other)


SCHEMA = {"type": "object", "properties": {"x": {}, "y": {}}}
REORDERED = {"type": "object", "properties": {"y": {}, "x": {}}}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda schema: {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        lambda schema: {"tools": [{"type": "function", "name": "f", "parameters": schema}]},
        lambda schema: {"tools": [{"name": "f", "input_schema": schema}]},
        lambda schema: {"functions": [{"name": "f", "parameters": schema}]},
        lambda schema: {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
        lambda schema: {"response_format": {"type": "json_object", "schema": schema}},
        lambda schema: {"text": {"format": {"type": "json_schema", "schema": schema}}},
        lambda schema: {"guided_json": schema},
    ],
)
def test_the_order_of_keys_matters_in_schemas_and_only_there(wrap: Any) -> None:
    assert form(wrap(SCHEMA)) != form(wrap(REORDERED))
    assert form(wrap(SCHEMA)) == form(json.dumps(wrap(SCHEMA), indent=2))
    elsewhere = {"tool_choice": SCHEMA}
    assert form(elsewhere) == form({"tool_choice": REORDERED})


def test_a_schema_that_only_says_what_the_form_says_is_not_taken_for_it() -> None:
    written = json.dumps(SCHEMA, separators=(",", ":"))
    one = {"functions": [{"name": "f", "parameters": SCHEMA}]}
    assert form(one) != form({"functions": [{"name": "f", "parameters": written}]})
    assert form(one) != form({"functions": [{"name": "f"}]})
    assert form({"functions": [{"name": "f", "parameters": None}]}) != form({"functions": [{"name": "f"}]})


def test_keys_that_composition_would_unite_stay_apart() -> None:
    both = '{"a":{"e\u0301":1,"\u00e9":2}}'
    assert form(both) != form('{"a":{"e\u0301":2,"\u00e9":1}}')
    assert form(both) != form('{"a":{"\u00e9":2}}')


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": None},
        {"messages": "x"},
        {"messages": [1, None, "x", [], {}]},
        {"messages": [{"content": []}, {"content": [[]]}, {"content": [{"type": [], "text": {}}]}]},
        {"tools": {}, "functions": 1, "response_format": [], "text": "x"},
        {"tools": [None, 1, [], {"function": None}, {"function": {"parameters": 1}}]},
        {"response_format": {"json_schema": None}, "text": {"format": []}},
    ],
)
def test_wrong_types_have_a_form_too_and_all_differ_from_nothing(request_: dict[str, Any]) -> None:
    assert form(request_) != form({})
    assert json.loads(form(request_)).keys() == request_.keys()


def test_the_request_is_not_changed() -> None:
    body = json.dumps(base(messages=[{"role": "user", "content": [{"type": "text", "text": "e\u0301\r"}]}])).encode()
    request = json_body.parse(body)
    for plain in (True, False):
        canonical_form(request, plain=plain, defaults=DEFAULTS)
        assert request == json.loads(body)


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b'{"a":"b\\n\\"c\\""}', True),
        ('{"a":"\u00e9\u4e16"}'.encode(), True),
        ('{"a":"e\u0301"}'.encode(), False),
        (b'{"a":"\\r\\n"}', False),
        (b'{"a":"e\\u0301"}', False),
        (b'{\r\n"a":1}', True),
    ],
)
def test_a_plain_body_needs_no_look_at_its_strings(body: bytes, plain: bool) -> None:
    assert is_plain(body) is plain


def test_embedding_items_have_forms_of_their_own() -> None:
    def items(given: Any) -> list[bytes] | None:
        return embedding_items({"input": given}, plain=True)

    assert items("a") == items(["a"])
    assert items([1, 2]) == items([[1, 2]])
    forms = items(["a", "b", "[1,2]", [1, 2], [12]])
    assert forms is not None
    assert len(set(forms)) == 5
    assert items(["a", "b"]) == [*(items("a") or []), *(items("b") or [])]
    assert embedding_items({"input": "e\u0301"}, plain=False) == items("\u00e9")


@pytest.mark.parametrize("given", [None, [], [[]], 1, {}, [None], [True], [[True]], ["a", 1], [[1.5]], {"a": 1}])
def test_an_input_of_another_form_has_no_items(given: Any) -> None:
    assert embedding_items({"input": given}, plain=True) is None


def test_more_items_than_can_be_looked_at_one_by_one_are_one_whole() -> None:
    most = embedding_items({"input": ["a"] * MAX_ITEMS}, plain=True)
    assert most is not None
    assert len(most) == MAX_ITEMS
    assert embedding_items({"input": ["a"] * (MAX_ITEMS + 1)}, plain=True) is None
    assert embedding_items({"input": [7] * (MAX_ITEMS + 1)}, plain=True) is not None, "one input of many tokens"


def test_what_embedding_items_share_has_all_but_input_and_encoding() -> None:
    request = {"model": "m", "input": "a", "encoding_format": "base64", "dimensions": 3}
    assert embedding_base(request, plain=True) == canonical_form({"dimensions": 3}, plain=True)
    assert embedding_base(request, plain=True) != embedding_base(request | {"dimensions": 4}, plain=True)
