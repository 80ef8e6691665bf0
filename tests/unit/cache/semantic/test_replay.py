"""A log of requests replayed: what a line may hold, what is a hit, and that memory is bounded."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from watchllm.cache.semantic import replay as replay_module
from watchllm.cache.semantic.decide import Policy
from watchllm.cache.semantic.logged import MAX_LINE, BadLine, Logged, read_log
from watchllm.cache.semantic.replay import NEVER_EXPIRES, Replay, Served
from watchllm.cache.semantic.static import StaticEmbedder

PERU = "What is the capital of Peru?"
LIKE_PERU = "whats the capital of peru pls"


def chat(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **more}


def lines(*rows: dict[str, Any]) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]


def read(*rows: dict[str, Any]) -> list[Logged]:
    return list(read_log(lines(*rows)))


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load()


def replayed(
    embedder: StaticEmbedder, rows: Iterable[dict[str, Any]], *, ttl: int = NEVER_EXPIRES, **bounds: int
) -> tuple[Replay, list[Served]]:
    replay = Replay(embedder, Policy(), lambda model, tokens: 0.5 if model == "priced" else None, ttl=ttl, **bounds)
    return replay, list(replay.serve(read_log(lines(*rows))))


def test_the_forms_of_a_line_ask_the_same() -> None:
    forms = (
        {"prompt": PERU},
        chat(PERU),
        chat([{"type": "text", "text": PERU}]),
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": PERU}]}]},
        {"body": chat(PERU), "time": 5, "cost": 0.25, "usage": {"input_tokens": 3, "output_tokens": 4}},
    )
    logged = read(*forms)
    assert [one.prompt for one in logged] == [PERU] * len(forms)
    assert (logged[-1].time, logged[-1].cost, logged[-1].tokens) == (5.0, 0.25, (3, 4))
    assert logged[1].context == logged[4].context
    assert [one.offset for one in logged] == [sum(map(len, lines(*forms)[:at])) for at in range(len(forms))]


def test_what_the_proxy_compares_is_compared_here() -> None:
    rows = {"prompt": [PERU]}, chat(PERU, n=2), chat([{"type": "text", "text": PERU, "cache_control": {}}])
    assert [one.prompt for one in read(*rows)] == [PERU, None, None]


@pytest.mark.parametrize(
    "row",
    [
        chat(PERU, temperature=0.5),
        chat(PERU, model="other"),
        {"messages": [{"role": "system", "content": "Be brief."}, *chat(PERU)["messages"]]},
        chat(PERU, tools=[{"type": "function"}]),
    ],
)
def test_whatever_else_differs_is_another_context(row: dict[str, Any]) -> None:
    plain, other = read(chat(PERU, model="m"), row)
    assert plain.context != other.context


def test_what_says_nothing_of_the_answer_is_no_context() -> None:
    plain, other = read(chat(PERU), chat(PERU, stream=True, user="u", cost=1, usage={}, time="2026-01-01"))
    assert plain.context == other.context


@pytest.mark.parametrize(
    "content",
    [[{"type": "image_url", "image_url": {}}], [], None, [{"type": "text"}], 5],
    ids=["image", "no parts", "none", "no text", "number"],
)
def test_a_message_without_text_alone_is_not_compared(embedder: StaticEmbedder, content: Any) -> None:
    assert read(chat(content))[0].prompt is None
    replay, served = replayed(embedder, [chat(content), chat(content)])
    assert not served
    assert (replay.totals.not_compared, replay.totals.exact_hits) == (1, 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no json", "line 2 is no JSON"),
        (b"[1]", "line 2 is no JSON object"),
        (b'{"promt": "x"}', 'line 2 has none of "messages"'),
        (b'{"prompt": "x", "input": "y"}', "or several"),
        (b'{"prompt": "x", "model": 5}', "line 2: model"),
        (b'{"prompt": "x", "time": "yesterday"}', "line 2: time"),
        (b'{"prompt": "x", "time": true}', "line 2: time"),
        (b'{"prompt": "x", "time": 1e300}', "line 2: time"),
        (b'{"prompt": "x", "time": 9}', "line 2 is older than line 1"),
        (b'{"prompt": "x", "cost": -1}', "line 2: cost"),
        (b'{"prompt": "x", "cost": "1"}', "line 2: cost"),
        (b'{"prompt": "x", "usage": 7}', "line 2: usage"),
        (b'{"prompt": "x", "usage": {"prompt_tokens": -7}}', "line 2: usage"),
        (b'{"body": "x"}', "line 2 has none"),
        (b"[" * 100_000, "line 2 is no JSON"),
        (b"\xff", "line 2 is no JSON"),
        (b" " + b"x" * MAX_LINE, "line 2 has more than"),
    ],
)
def test_a_bad_line_is_told_with_its_number(line: bytes, said: str) -> None:
    with pytest.raises(BadLine, match=said):
        list(read_log([b'{"prompt": "x", "time": 10}', line]))


def test_times_are_read_in_each_spelling() -> None:
    spelled = ("1970-01-01T00:00:10Z", "1970-01-01 00:00:10", 10, 10.0)
    assert {read({"prompt": "x", "time": time})[0].time for time in spelled} == {10.0}
    assert read({"prompt": "x", "time": 1_767_265_300_500})[0].time == 1_767_265_300.5


def test_hits_and_money_are_counted(embedder: StaticEmbedder) -> None:
    replay, served = replayed(
        embedder,
        [
            chat(PERU, cost=1.0),
            chat(LIKE_PERU, cost=0.25),
            chat(PERU, cost=0.125),
            chat("What is the capital of Chile?", model="priced", usage={"prompt_tokens": 1}),
            chat("what's the capital of chile", model="priced", usage={"prompt_tokens": 1}),
            chat("What is it?"),
        ],
    )
    assert [(one.asked.line, one.stored.line, one.saved) for one in served] == [(2, 1, 0.25), (5, 4, 0.5)]
    totals = replay.totals
    assert (totals.requests, totals.exact_hits, totals.semantic_hits, totals.without_cost) == (6, 1, 2, 1)
    assert (totals.cost_usd, totals.saved_usd, totals.saved_usd_semantic) == (2.375, 0.875, 0.75)


def test_contexts_never_meet(embedder: StaticEmbedder) -> None:
    _, served = replayed(embedder, [chat(PERU, temperature=0), chat(LIKE_PERU, temperature=1)])
    assert not served


def test_an_answer_is_served_until_its_time_is_over(embedder: StaticEmbedder) -> None:
    def served(seconds: int, ttl: int) -> int:
        rows = [chat(PERU, time=0), chat(LIKE_PERU, time=seconds), chat(PERU, time=seconds)]
        totals = replayed(embedder, rows, ttl=ttl)[0].totals
        return totals.exact_hits + totals.semantic_hits

    assert served(59, 60) == 2
    assert served(60, 60) == 1, "the second, kept just now, answers the third"
    assert served(10**8, NEVER_EXPIRES) == 2


def test_what_is_asked_of_today_needs_to_know_the_day(embedder: StaticEmbedder) -> None:
    today, like = "What is on television today?", "whats on television today"

    def count(**times: int) -> int:
        first, second = ({"time": time} for time in times.values()) if times else ({}, {})
        return len(replayed(embedder, [chat(today, **first), chat(like, **second)])[1])

    assert count(a=10, b=20) == 1
    assert count(a=86_399, b=86_401) == 0
    assert count() == 0


@pytest.mark.parametrize("bounds", [{"max_entries": 5}, {"max_bytes": 10_000}])
def test_a_long_log_is_forgotten_from_its_beginning(embedder: StaticEmbedder, bounds: dict[str, int]) -> None:
    rows = [chat(f"How old is city number {number}?", temperature=number % 3) for number in range(200)]
    replay, served = replayed(
        embedder, [*rows, chat(rows[0]["messages"][0]["content"], temperature=0), rows[-1]], **bounds
    )
    assert not served
    assert replay.totals.exact_hits == 1, "the last is there, the first is not"
    assert replay.totals.forgotten > 190
    assert len(replay._stored) <= 6
    assert sum(map(len, replay._contexts.values())) == len(replay._stored)
    assert len(replay._contexts) <= 3


def test_many_prompts_of_one_context_are_found_as_few_are(embedder: StaticEmbedder) -> None:
    rows = [chat(f"How old is city number {number}?") for number in range(replay_module._FEW + 40)]
    _, served = replayed(embedder, [*rows, chat("how old is city number 3"), chat("how old is city number 101")])
    assert [one.stored.line for one in served] == [4, 102]
