"""Fuzz: reading JSON strictly, its canonical form, and the gate between them."""

import json
import math
import unicodedata
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.answers import json_values
from watchllm.cache.bypass import bypass_reason
from watchllm.cache.canonical import Defaults, canonical_form, embedding_items, is_plain
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest

pytestmark = pytest.mark.fuzz

PIECES = [
    *(
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"',
        "\\",
        " ",
        "\n",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E+",
        "true",
        "null",
        "NaN",
        '"a"',
        '"b"',
    ),
    *('"a":', '"b":', "1.0", "1e2", "-0", "1e400", "\\u003a", "\\ud800", "\\udc00", "\\u0041", "é", "\ufeff", "\x00"),
    *('{"a":1}', "[1,2]", '"messages":', '"content":', "9007199254740993.0", "18446744073709551616", "\\r", "\r"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
bodies = st.one_of(
    texts.map(str.encode),
    texts.map(lambda text: b'{"a":' + text.encode() + b"}"),
    st.binary(max_size=40),
    st.tuples(texts, st.binary(max_size=2), texts).map(lambda t: t[0].encode() + t[1] + t[2].encode()),
)


class Refused(Exception):
    pass


def strictly(body: bytes) -> Any:
    """What the standard library reads, with what it is lax about refused."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise Refused
        return dict(pairs)

    def refuse(_: str) -> Any:
        raise Refused

    def finite(spelling: str) -> float:
        if math.isinf(float(spelling)):
            raise Refused
        return float(spelling)

    try:
        document = json.loads(body.decode(), object_pairs_hook=once, parse_constant=refuse, parse_float=finite)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, Refused):
        raise Refused from None
    if type(document) is not dict:
        raise Refused
    return document


@given(bodies)
def test_exactly_what_is_strict_json_is_accepted_with_equal_values(body: bytes) -> None:
    try:
        expected = strictly(body)
    except Refused:
        with pytest.raises(BadRequest) as refusal:
            json_body.parse(body)
        assert refusal.value.code in ("invalid_json", "invalid_request")
        return
    assert approximately(json_body.parse(body)) == approximately(expected)


def approximately(value: Any) -> Any:
    """Doubles for all numbers: what integral numbers beyond 2⁵³ are exactly is told by another test."""
    if type(value) is dict:
        return {key: approximately(member) for key, member in value.items()}
    if type(value) is list:
        return [approximately(item) for item in value]
    return float(value) if type(value) is int else value


@given(
    st.text("0123456789", min_size=1, max_size=30),
    st.text("0123456789", max_size=30),
    st.integers(-40, 40) | st.none(),
)
def test_integral_numbers_are_exact(whole: str, fraction: str, exponent: int | None) -> None:
    spelling = str(int(whole)) + ("." + fraction if fraction else "") + (f"e{exponent}" if exponent is not None else "")
    exact = Fraction(spelling)
    value = json_body.parse(f'{{"a":{spelling}}}'.encode())["a"]
    if exact.denominator == 1:
        assert (type(value), value) == (int, exact)
    else:
        assert value == float(spelling)


DEFAULTS = Defaults({"n": 1, "stop": [], "text": {"type": "text"}}, nullable=["index", "usage"])
requests = st.dictionaries(
    st.sampled_from(
        ["messages", "tools", "functions", "response_format", "text", "content", "stop", "n", "index", "input"]
    )
    | st.text(max_size=5),
    json_values(),
    max_size=5,
)


def form(body: bytes) -> bytes:
    return canonical_form(json_body.parse(body), plain=is_plain(body), defaults=DEFAULTS)


def shuffled(value: Any, in_schema: bool = False) -> Any:
    if type(value) is dict:
        keys = list(value) if in_schema else list(value)[::-1]
        schemas = ("parameters", "schema", "input_schema", "guided_json")
        return {key: shuffled(value[key], in_schema or key in schemas) for key in keys}
    if type(value) is list:
        return [shuffled(item, in_schema) for item in value]
    return value


@given(requests)
def test_spelling_and_order_do_not_matter_for_any_request(request: dict[str, Any]) -> None:
    one = form(json.dumps(request, ensure_ascii=False).encode())
    assert form(json.dumps(request, indent=1).encode()) == one
    assert form(json.dumps(shuffled(request)).encode()) == one


@given(requests, requests)
def test_requests_of_one_form_are_the_same_to_an_independent_reading(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    same_form = form(json.dumps(one).encode()) == form(json.dumps(other).encode())
    assert same_form == (independent(one) == independent(other))


@given(requests.filter(bool), st.data())
def test_a_change_anywhere_changes_the_form(request: dict[str, Any], data: st.DataObject) -> None:
    changed, left_out = altered(request, data)
    if independent(changed) != independent(request):
        assert form(json.dumps(changed).encode()) != form(json.dumps(request).encode()), left_out


def altered(value: Any, data: st.DataObject) -> tuple[Any, str]:
    """A copy with one thing changed, somewhere inside."""
    if type(value) is dict and value:
        key = data.draw(st.sampled_from(sorted(value)))
        inner, where = altered(value[key], data)
        return value | {key: inner}, f"{key}.{where}"
    if type(value) is list and value:
        at = data.draw(st.integers(0, len(value) - 1))
        inner, where = altered(value[at], data)
        return [*value[:at], inner, *value[at + 1 :]], f"{at}.{where}"
    return data.draw(json_values(3)), ""


def independent(request: dict[str, Any]) -> Any:
    """The equivalence of contract section 6, written once more, naively, by comparison of tagged trees."""

    def text(value: str) -> str:
        return unicodedata.normalize("NFC", value.replace("\r\n", "\n").replace("\r", "\n"))

    def tree(value: Any, path: tuple[str, ...] = ()) -> Any:
        if type(value) is dict:
            names = [text(key) for key in value]
            names = names if len(set(names)) == len(names) else list(value)
            members = [(name, tree(member, (*path, name))) for name, member in zip(names, value.values(), strict=True)]
            return ("object", tuple(members) if is_schema(path) else frozenset(members))
        if type(value) is list:
            items = tuple(tree(item, (*path, "*")) for item in value)
            part = items[0] if len(items) == 1 else None
            if path == ("messages", "*", "content") and type(part) is tuple and type(value[0]) is dict:
                says = dict(part[1])
                if says.keys() == {"type", "text"} and says["type"] == ("str", "text") and says["text"][0] == "str":
                    return says["text"]
            return ("array", items)
        if type(value) is str:
            return ("str", text(value))
        if type(value) is float and value.is_integer():
            value = int(value)
        return (type(value).__name__, value)

    fields = {}
    names = [text(name) for name in request]
    names = names if len(set(names)) == len(names) else list(request)
    for name, value in zip(names, request.values(), strict=True):
        field = tree(value, (name,))
        left = name in ("model", "stream", "stream_options", "user", "metadata")
        default = field == tree(DEFAULTS.values[name], (name,)) if name in DEFAULTS.values else False
        if not left and not default and not (value is None and name in DEFAULTS.nullable):
            fields[name] = field
    return fields


SCHEMAS = [
    ("tools", "*", "function", "parameters"),
    ("tools", "*", "parameters"),
    ("tools", "*", "input_schema"),
    ("functions", "*", "function", "parameters"),
    ("functions", "*", "parameters"),
    ("functions", "*", "input_schema"),
    ("response_format", "json_schema", "schema"),
    ("response_format", "schema"),
    ("text", "format", "schema"),
]


def is_schema(path: tuple[str, ...]) -> bool:
    return any(path[: len(schema)] == schema for schema in SCHEMAS)


@given(requests)
def test_no_request_makes_the_gates_fail(request: dict[str, Any]) -> None:
    body = json.dumps(request).encode()
    parsed = json_body.parse(body)
    bypass_reason(parsed)
    embedding_items(parsed, plain=is_plain(body))
