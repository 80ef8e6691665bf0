"""The key covers everything that can change the answer, and nothing can pass for something else in it."""

from typing import Any

import pytest

from watchllm.cache.key import KeyHash, Target, answer_headers

SECRET = bytes(range(32))
PARTS: dict[str, Any] = {
    "project_id": "prj_1",
    "user": None,
    "family": "generate",
    "target": Target("openai", "https://api.openai.com/v1", "gpt-4o-mini"),
    "headers": (),
    "query": b"",
    "canonical": b"{}",
}


def key(secret: bytes = SECRET, **changes: Any) -> bytes:
    return KeyHash(secret).key(**(PARTS | changes))


def test_it_is_a_256_bit_hash_that_does_not_change_from_run_to_run() -> None:
    assert len(key()) == 32
    assert key() == key()
    assert key().hex().startswith("ebb7172e723c74c8")


@pytest.mark.parametrize(
    "changes",
    [
        {"project_id": "prj_2"},
        {"user": ""},
        {"user": "u"},
        {"family": "completions"},
        {"target": Target("groq", "https://api.openai.com/v1", "gpt-4o-mini")},
        {"target": Target("openai", "https://eu.api.openai.com/v1", "gpt-4o-mini")},
        {"target": Target("openai", "https://api.openai.com/v1", "gpt-4o")},
        {"headers": (("openai-beta", b"x"),)},
        {"query": b"api-version=1"},
        {"canonical": b'{"a":1}'},
        {"item": b""},
        {"secret": bytes(32)},
    ],
)
def test_every_part_matters(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_parts_cannot_pass_for_one_another() -> None:
    keys = [
        key(target=Target("a", "bc", "d")),
        key(target=Target("ab", "c", "d")),
        key(target=Target("a", "b", "cd")),
        key(target=Target("a|bc", "", "d")),
        key(query=b"a", canonical=b"b"),
        key(query=b"ab", canonical=b""),
        key(query=b"", canonical=b"ab"),
        key(project_id="p", user="u"),
        key(project_id="pu", user=""),
        key(project_id="pu", user=None),
        key(headers=(("a", b"b"),)),
        key(headers=(("a", b""), ("b", b""))),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        KeyHash(bytes(length))


def test_only_headers_that_can_change_the_answer_count() -> None:
    assert answer_headers([(b"host", b"a"), (b"accept", b"*/*"), (b"user-agent", b"x")]) == ()
    assert answer_headers([(b"openai-beta", b"assistants=v2"), (b"anthropic-version", b"2023-06-01")]) == (
        ("anthropic-version", b"2023-06-01"),
        ("openai-beta", b"assistants=v2"),
    )


def test_a_list_in_a_header_is_one_however_it_is_written() -> None:
    one = answer_headers([(b"anthropic-beta", b"b, a"), (b"anthropic-beta", b"c,a,")])
    assert one == answer_headers([(b"anthropic-beta", b"a,b,c")])
    assert one != answer_headers([(b"anthropic-beta", b"a,b")])
