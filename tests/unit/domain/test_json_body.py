"""What a request's JSON must be, and what a refusal says."""

import json
import time

import pytest

from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest


def refusal(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        json_body.parse(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":Infinity}', "NaN and Infinity"),
        (b'{"a":-Infinity}', "NaN and Infinity"),
        (b'{"a":1e999}', "1e999 at byte 5"),
        (b'{"a":-1e400}', "-1e400 at byte 5"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\\\\\udc00"}', "surrogate"),
        (b'{"\\udc00\\ud800":1}', "surrogate"),
        (b'{"a":"\xff"}', "not UTF-8: byte 0xff at offset 6"),
        (b'{"\xff":1}', "not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\xc0\x80"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":1} x', "trailing characters (byte "),
        (b'{"a":1}{"a":1}', "trailing characters"),
        (b'{"a":1,}', "trailing comma"),
        (b'{"a":"x', "truncated"),
        (b'{"a":01}', "invalid number"),
        (b'{"a":"\x00"}', "invalid character"),
        (b"{'a':1}", "byte 1"),
        (b'{"a":' + b"1" * 5000 + b"}", "4,300 digits"),
        (b'{"a":0.' + b"1" * 5000 + b"}", "out of the range"),
        (b'{"a":1.' + b"0" * 5000 + b"}", "out of the range"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_what_and_where(body: bytes, says: str) -> None:
    error = refusal(body)
    assert error.code == "invalid_json"
    assert says in error.message


@pytest.mark.parametrize("body", [b"[1]", b'"x"', b"1", b"1.5", b"true", b"null"])
def test_a_document_that_is_no_object_is_an_invalid_request(body: bytes) -> None:
    assert refusal(body).code == "invalid_request"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"a":1,"a":1}', "'a'"),
        (b'{"a":1,"b":[{"c":{"d":1,"d":2}}]}', "'d'"),
        (b'{"a":1,"\\u0061":2}', "'a'"),
        # An escaped colon in what is kept must not make up for the colon of what is dropped.
        (b'{"a":1,"a":"\\u003a"}', "'a'"),
        (b'{"a":1,"a":"\\u003A"}', "'a'"),
        (b'{"a":":","a":"x"}', "'a'"),
        (b'{"a:":1,"a\\u003a":2}', "'a:'"),
        (b'{"":1,"":2}', "''"),
    ],
)
def test_a_repeated_key_is_refused_by_name_at_any_level(body: bytes, key: str) -> None:
    error = refusal(body)
    assert error.code == "invalid_json"
    assert f"repeats the key {key}" in error.message


def test_the_repeated_key_among_very_many_is_found_in_one_pass() -> None:
    members = ",".join(f'"{number}":0' for number in range(100_000))
    began = time.process_time()
    assert "'99999'" in refusal(f'{{{members},"99999":0}}'.encode()).message
    assert time.process_time() - began < 10, "a comparison of each with each takes minutes"


def test_a_long_repeated_key_is_named_in_part_only() -> None:
    key = "k" * 10_000
    assert len(refusal(f'{{"{key}":1,"{key}":2}}'.encode()).message) < 200


def test_the_same_key_in_different_objects_and_colons_in_texts_are_fine() -> None:
    body = rb'{"a":{"a":1},"b":[{"a":":::"},{"a":"\u003a\\u003a"}],":":"a:b"}'
    assert json_body.parse(body) == json.loads(body)


def nested(levels: int, opening: str, closing: str) -> bytes:
    """An object of `levels` levels in all."""
    return ('{"a":' + opening * (levels - 1) + "1" + closing * (levels - 1) + "}").encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_128_levels_are_accepted_and_129_are_not(opening: str, closing: str) -> None:
    json_body.parse(nested(128, opening, closing))
    for levels in (129, 10_000, 1_000_000):
        error = refusal(nested(levels, opening, closing))
        assert (error.code, "128 levels" in error.message) == ("invalid_json", True)


def test_empty_containers_count_as_levels() -> None:
    body = b'{"a":' + b"[" * 128 + b"]" * 128 + b"}"
    assert "128 levels" in refusal(body).message


def test_many_brackets_beside_each_other_and_in_texts_are_not_deep() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "[[[{{{" * 100}] * 300}).encode()
    assert json_body.parse(body) == json.loads(body)


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("1.0", 1),
        ("1e2", 100),
        ("1E+2", 100),
        ("120e-1", 12),
        ("-0.0", 0),
        ("-0", 0),
        ("0e999999999", 0),
        ("1e-400", 0),
        # As powers of ten these would take all memory.
        ("0e99999999999999999", 0),
        ("-1e-99999999999999999", 0),
        ("1e22", 10**22),
        ("9007199254740993.0", 9007199254740993),
        ("900719925474099.3e1", 9007199254740993),
        ("1e308", 10**308),
        ("18446744073709551617", 18446744073709551617),
    ],
)
def test_integral_numbers_are_exact_integers_whatever_their_spelling(spelling: str, value: int) -> None:
    parsed = json_body.parse(f'{{"a":{spelling}}}'.encode())["a"]
    assert (type(parsed), parsed) == (int, value)


@pytest.mark.parametrize("spelling", ["0.7", "1e-7", "123456789012345678.5", "1.00000000000000000001", "-2.5"])
def test_other_numbers_are_doubles(spelling: str) -> None:
    parsed = json_body.parse(f'{{"a":{spelling}}}'.encode())["a"]
    assert (type(parsed), parsed) == (float, float(spelling))
