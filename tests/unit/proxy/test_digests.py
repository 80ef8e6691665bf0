"""Large bodies are told apart field by field as small ones are, without bringing all of them to a canonical form."""

from typing import Any

import msgspec
import pytest

from watchllm.cache.canonical import NO_DEFAULTS, Defaults
from watchllm.domain import json_body
from watchllm.proxy import digests
from watchllm.proxy.digests import LARGE, field_digests

LONG = "long " * 20_000


def digested(document: dict[str, Any], defaults: Defaults = NO_DEFAULTS) -> dict[str, int]:
    return field_digests(msgspec.json.encode(document), defaults)


def differing(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    first, second = digested(one), digested(other)
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


BASE: dict[str, Any] = {"model": "m", "messages": [said("a"), said(LONG), said("b")], "temperature": 1, "tools": [LONG]}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, set()),
        ({"temperature": 0}, {"temperature"}),
        ({"seed": 1}, {"seed"}),
        ({"tools": [LONG + "x"]}, {"tools"}),
        ({"messages": [said("a"), said(LONG), said("c")]}, {"messages[2]"}),
        ({"messages": [said("a"), said(LONG + "x"), said("b")]}, {"messages[1]"}),
        ({"messages": [said("a"), said(LONG)]}, {"messages[2]"}),
        ({"n" * 100: LONG}, {"other fields"}),
        ({"user": LONG, "metadata": {"x": LONG}}, set()),
    ],
    ids=lambda value: ",".join(sorted(value))[:40] or "nothing",
)
def test_what_differs_in_a_large_body_is_named(change: dict[str, Any], names: set[str]) -> None:
    assert differing(BASE, BASE | change) == names
    assert differing(BASE | {"n" * 100: 1}, BASE | {"n" * 100: 1} | change) == names


def test_small_parts_mean_in_a_large_body_what_they_mean_in_a_small_one() -> None:
    small = {"messages": [said("café\r\n"), [{"type": "text", "text": "x"}]], "temperature": 1, "n": 1}
    defaults = Defaults({"n": 1})
    spelled = {"n": 1.0, "messages": [{"content": "cafe\u0301\n", "role": "user"}, small["messages"][1]]}
    large = spelled | {"temperature": 1.0, "tools": LONG}
    of_small, of_large = digested(small, defaults), digested(large, defaults)
    assert of_large.pop("tools") == digested({"tools": LONG})["tools"]
    assert of_large == of_small


def test_a_field_at_its_place_among_large_messages_is_not_taken_for_another() -> None:
    assert differing({"messages": [LONG, LONG + "x"]}, {"messages": [LONG + "x", LONG]}) == {
        "messages[0]",
        "messages[1]",
    }
    assert differing({"messages": [LONG]}, {"messages": ["?"]}) == {"messages[0]"}
    assert differing({"tools": LONG}, {"tools": "?", "messages": [LONG]}) == {"tools", "messages[0]"}


DENSE: dict[str, dict[str, Any]] = {
    "numbers": {"messages": [list(range(100_000))]},
    "messages": {"messages": [[]] * 70_000},
    "arrays": {"messages": [[[]] * 70_000]},
    "fields": {f"field-{number}": number for number in range(60_000)},
    "long names": {f"{number:060}": number for number in range(9_500)},
    "longer names": {f"{number:0100000}": number for number in range(9)},
    "members": {"metadata": {f"field-{number}": number for number in range(60_000)}},
    "text": {"messages": [said("ä" * 400_000)]},
}


@pytest.mark.parametrize("kind", DENSE)
def test_of_a_large_body_only_so_much_is_read_as_of_a_small_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    genuine = json_body.parse

    def parse(body: bytes) -> dict[str, Any]:
        read.append(len(body))
        return genuine(body)

    document = DENSE[kind]
    assert len(msgspec.json.encode(document)) > 2 * LARGE
    with monkeypatch.context() as watched:
        watched.setattr(json_body, "parse", parse)
        watched.setattr(digests, "is_plain", lambda body: pytest.fail("all of it is looked at"))
        assert len(digested(document)) < 100
    assert sum(read) <= LARGE * 5 // 4  # with names and what stands between
    if kind != "members":  # `metadata` is no part of the key
        first, last = next(iter(document)), next(reversed(document))
        assert differing(document, document | {first: "else"}) != set()
        assert differing(document, document | {last: "else"}) != set()
