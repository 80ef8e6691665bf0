"""How much a JSON body may hold: what is refused as too much work, and what is not although it looks like it."""

import json
import random

import pytest

from watchllm.domain import json_body
from watchllm.domain.errors import GatewayError, WireRefusal
from watchllm.domain.json_work import MAX_LONG_DIGITS, MAX_WORK

MIB = 1 << 20


def array_of(item: str, count: int) -> bytes:
    return ('{"input":[' + ",".join([item] * count) + "]}").encode()


def refusal(body: bytes) -> GatewayError:
    with pytest.raises(WireRefusal) as caught:
        json_body.parse(body)
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")
    return caught.value


@pytest.mark.parametrize(
    ("item", "work"),
    [("0", 1), ("0.5", 1), ("null", 1), ('""', 1), ('"é"', 1), ("[]", 5), ("{}", 5), ('{"a":1}', 7), ("[[]]", 9)],
)
def test_values_are_read_up_to_the_bound_and_refused_above_it(item: str, work: int) -> None:
    body = array_of(item, (MAX_WORK - 20) // work)
    assert json_body.parse(body) == json.loads(body)
    assert "400,000 numbers" in refusal(array_of(item, MAX_WORK // work + 20)).message


def test_the_members_of_one_object_count() -> None:
    def members(count: int) -> bytes:
        return json.dumps({str(number): 0 for number in range(count)}).encode()

    assert len(json_body.parse(members(MAX_WORK // 3 - 20))) == MAX_WORK // 3 - 20
    refusal(members(MAX_WORK // 3 + 20))


def test_the_largest_embeddings_request_of_openai_is_read() -> None:
    body = json.dumps({"input": [[99_999] * 146] * 2048 + [[1] * 992]}).encode()
    assert sum(map(len, json_body.parse(body)["input"])) == 300_000


@pytest.mark.parametrize(
    "text",
    [
        "[[[{{{:::,,," * 200_000,
        '[{"key": "[,,,]"}, ' * 100_000,
        "\\[,:" * 200_000 + "\\",
        '\\" [,:' * 200_000,
        "0123456789" * 400_000,
    ],
    ids=["brackets", "JSON", "backslashes", "quotes", "digits"],
)
def test_what_a_text_holds_does_not_count(text: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    assert json_body.parse(body) == json.loads(body)


def test_values_between_texts_full_of_quotes_are_found() -> None:
    tricky = json.dumps(['\\"', "\\", '"', "\\\\", "x"])[1:-1]
    refusal(array_of(tricky, MAX_WORK // 5 + 20))


@pytest.mark.parametrize(
    ("number", "digits"),
    [("1e300", 301), ("1.5e300", 301), ("9" * 4_000, 4_000), ("-" + "9" * 4_000, 4_000), ("0." + "3" * 998, 1_000)],
    ids=["exponent", "fraction and exponent", "integer", "negative integer", "fraction"],
)
def test_long_numbers_are_read_up_to_the_bound_and_refused_above_it(number: str, digits: int) -> None:
    few = MAX_LONG_DIGITS * 9 // 10 // digits
    assert len(json_body.parse(array_of(number, few) + b" " * json_body.LARGE)["input"]) == few
    more = MAX_LONG_DIGITS * 11 // 10 // digits
    assert "digits" in refusal(array_of(number, more) + b" " * json_body.LARGE).message


@pytest.mark.parametrize("shift", range(8))
def test_where_the_beginning_is_cut_makes_no_difference(shift: int) -> None:
    texts = json.dumps(["\\\\[,", 'a"[,', "[[[,,,", "12345678901234567890"] * 120_000)
    body = b'{"x":"%b","input":%b}' % (b"x" * shift, texts.encode())
    assert len(body) > 4 * MIB
    refusal(body)
    few = json.dumps({"x": "x" * shift, "input": ["\\\\[," * 300, 'a"[,' * 300, "[[[,,,123" * 300] * 1_000})
    assert len(few) > 4 * MIB
    assert json_body.parse(few.encode()) == json.loads(few)


def test_integers_of_64_bits_are_not_long() -> None:
    body = array_of("1234567890123456789", 100_000)
    assert json_body.parse(body) == json.loads(body)


@pytest.mark.parametrize("opening", ["[", '{"a":', "[{},"])
def test_what_is_too_deep_as_well_is_refused_as_that(opening: str) -> None:
    with pytest.raises(GatewayError) as caught:
        json_body.parse(b'{"a":' + opening.encode() * MIB)
    assert (caught.value.code, "128 levels" in caught.value.message) == ("invalid_json", True)


def test_a_large_body_that_is_no_json_is_refused_as_that() -> None:
    random_bytes = random.Random(5).randbytes(MIB)
    for body in (b'{"a":"' + b"x" * MIB, b'{"a":"' + b"[,]" * MIB, b'{"a":"\xff' + b"x" * MIB, random_bytes):
        with pytest.raises(GatewayError) as caught:
            json_body.parse(body)
        assert (caught.value.status, caught.value.code) == (400, "invalid_json")
