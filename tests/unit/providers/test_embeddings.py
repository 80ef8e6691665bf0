"""Vectors keep what the provider said, to the bit, in whichever form it said it; answers are put together of items."""

import base64
import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai import embeddings as wire_form
from watchllm.providers.openai.embeddings import Vector

MODEL = b'"text-embedding-3-small"'
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def read(item: dict[str, Any] | bytes) -> Vector | None:
    body = item if isinstance(item, bytes) else json.dumps(item).encode()
    return wire_form.vector(msgspec.json.decode(body, type=wire_form.Members), MODEL)


def stored(item: dict[str, Any] | bytes) -> Vector:
    """As it comes back from the cache."""
    vector = read(item)
    assert vector is not None
    again = wire_form.unpack(wire_form.pack(vector))
    assert again == vector
    return vector


def embedding(vector: Vector, *, in_base64: bool = False) -> Any:
    return json.loads(vector.item(0, base64=in_base64))["embedding"]


def packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


@given(st.lists(floats32, min_size=1))
def test_a_vector_in_base64_is_the_same_text_again(numbers: list[float]) -> None:
    text = base64.b64encode(packed(numbers)).decode()
    vector = stored({"object": "embedding", "index": 3, "embedding": text})
    assert embedding(vector, in_base64=True) == text
    assert embedding(vector) == numbers
    assert vector.dimensions == len(numbers)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_a_vector_as_numbers_is_the_same_numbers_again(numbers: list[float]) -> None:
    vector = stored({"object": "embedding", "index": 0, "embedding": numbers})
    assert [number.hex() for number in embedding(vector)] == [number.hex() for number in numbers]
    assert vector.dimensions == len(numbers)


@given(st.lists(floats32, min_size=1))
def test_the_shortest_decimals_of_floats_are_those_floats_in_base64(numbers: list[float]) -> None:
    # As vendors write them that print a 32-bit float with no more digits than it takes.
    written = [float(f"{number:.9g}") for number in numbers]
    vector = stored({"index": 0, "embedding": written})
    assert embedding(vector) == written
    assert base64.b64decode(embedding(vector, in_base64=True)) == packed(numbers)


def test_numbers_that_are_floats_are_kept_in_four_bytes_each() -> None:
    numbers = list(struct.unpack("<1536f", bytes(range(1, 97)) * 64))
    vector = stored({"index": 0, "embedding": numbers})
    assert len(wire_form.pack(vector)) < 4 * 1536 + 64


@pytest.mark.parametrize(
    "embedding",
    ["[]", '""', "null", "7", "{}", '["a"]', "[1,null]", "[[1]]", '"AAAA"', '"%%%%"', '"AAAAAA="', '"QUJD"'],
)
def test_what_is_no_vector_is_none(embedding: str) -> None:
    assert read(b'{"object":"embedding","index":0,"embedding":%b}' % embedding.encode()) is None


def test_members_that_openai_does_not_know_stay() -> None:
    item = {"object": "embedding", "index": 5, "embedding": [1.5], "text": 'a " b', "score": 0.25}
    assert json.loads(stored(item).item(2, base64=False)) == item | {"index": 2}


def test_what_was_not_stored_as_a_vector_is_none() -> None:
    assert wire_form.unpack(b'{"object":"list"}') is None
    assert wire_form.unpack(b"") is None


def answer(*indexes: Any, **more: Any) -> wire_form.Members:
    data = [{"object": "embedding", "index": index, "embedding": [float(place)]} for place, index in enumerate(indexes)]
    members = wire_form.members(json.dumps({"object": "list", "data": data, "model": "m", **more}).encode())
    assert members is not None
    return members


def test_items_are_ordered_by_their_indexes() -> None:
    items = wire_form.items(answer(2, 0, 1), 3)
    assert items is not None
    assert [json.loads(bytes(item["embedding"])) for item in items] == [[1.0], [2.0], [0.0]]


@pytest.mark.parametrize(
    "indexes", [(), (0,), (0, 1, 2), (0, 0), (1, 2), (0, -1), (0, "1"), (0, None), (0, 1.5), (0, True)]
)
def test_items_that_are_not_one_for_each_input_are_none(indexes: tuple[Any, ...]) -> None:
    assert wire_form.items(answer(*indexes), 2) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": {}},
        {"data": [1, 2]},
        {"data": [{"index": 0}, {"embedding": [1]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}], "error": {"message": "no"}},
    ],
)
def test_an_answer_of_another_form_has_no_items(body: dict[str, Any]) -> None:
    members = wire_form.members(json.dumps(body).encode())
    assert members is not None
    assert wire_form.items(members, 2) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"data":', b"\xff", b'"data"'])
def test_what_is_no_object_has_no_members(body: bytes) -> None:
    assert wire_form.members(body) is None


@pytest.mark.parametrize(
    ("reported", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, 7),
        ({"total_tokens": 9}, 9),
        ({"prompt_tokens": None, "total_tokens": 4}, 4),
        ({"prompt_tokens": 0, "total_tokens": 0}, 0),
    ],
)
def test_usage(reported: dict[str, Any], tokens: int) -> None:
    assert wire_form.usage(answer(0, usage=reported)) == TokenUsage(input=tokens)


@pytest.mark.parametrize("reported", [None, {}, [], "7", {"prompt_tokens": "7"}])
def test_no_usage(reported: Any) -> None:
    assert wire_form.usage(answer(0, usage=reported)) is None
    assert wire_form.usage(answer(0)) is None


def test_a_request_for_some_of_its_inputs_keeps_each_as_it_was_written() -> None:
    body = rb'{"input": ["caf\u00e9", [1,  2], "b"], "model":"openai/m", "dimensions" :3, "x": 1.50}'
    assert wire_form.upstream_body(body, [0, 1], "m") == (
        rb'{"input":["caf\u00e9",[1,  2]],"model":"m","dimensions":3,"x":1.50}'
    )


def test_an_answer_put_together_says_all_else_as_it_was_said() -> None:
    members = wire_form.members(b'{"id": "x", "data": [], "model":"m", "usage":{"prompt_tokens": 3}, "z": 1.50}')
    before, after = wire_form.frame(b"", members)
    assert before + b"ITEMS" + after == b'{"id":"x","data":[ITEMS],"model":"m","usage":{"prompt_tokens": 3},"z":1.50}'


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_shares_sum_to_the_whole_and_follow_their_weights(total: int, weights: list[int]) -> None:
    shares = wire_form.apportioned(total, weights)
    assert sum(shares) == total
    weight = sum(weights)
    if weight:
        assert all(abs(share * weight - total * one) < weight for share, one in zip(shares, weights, strict=True))
    else:
        assert max(shares) - min(shares) <= 1
