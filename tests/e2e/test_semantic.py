"""Like questions are answered from the cache: modes, headers, log, and what a request may ask for itself."""

import json

import pytest

from tests.support.admin import admin_get
from tests.support.product import Gateway, Project, Sim
from tests.support.semantic import LIKE, QUESTION, UNLIKE, outcome, reasons, rows_of, serving, wait_until_warm
from tests.support.waiting import wait_for


@pytest.fixture
def warm(gateway: Gateway) -> Gateway:
    return wait_until_warm(gateway)


@pytest.fixture
def project(warm: Gateway) -> Project:
    """A project in which QUESTION was answered."""
    project = serving(warm)
    assert outcome(warm.chat(project.key, QUESTION)) == "MISS"
    return project


def test_a_like_question_gets_the_stored_answer(warm: Gateway, sim: Sim) -> None:
    project = serving(warm)
    first = warm.chat(project.key, QUESTION)
    like = warm.chat(project.key, LIKE)
    assert outcome(like) == "HIT-SEMANTIC"
    assert like.json() == first.json()
    assert sim.calls() == 1
    assert 0 < float(like.header("X-WatchLLM-Cache-Similarity") or "") <= 1
    assert 0.8 <= float(like.header("X-WatchLLM-Cache-Confidence") or "") <= 1
    assert len((like.header("X-WatchLLM-Cache-Similarity") or "").partition(".")[2]) == 4
    assert like.header("X-WatchLLM-Cost-USD") == "0.000000"
    assert like.header("X-WatchLLM-Saved-USD") == first.header("X-WatchLLM-Cost-USD")
    assert int(like.header("X-WatchLLM-Tokens-Saved") or "") == first.json()["usage"]["total_tokens"]
    assert "embed;dur=" in (like.header("Server-Timing") or "")
    assert like.header("X-WatchLLM-Cache-Age") is not None


def test_what_only_looks_alike_is_a_miss(warm: Gateway, project: Project) -> None:
    answer = warm.chat(project.key, UNLIKE)
    assert outcome(answer) == "MISS"
    assert answer.header("X-WatchLLM-Cache-Similarity") is None
    assert reasons(warm, answer)[0] == "miss"


def test_a_like_question_can_be_streamed(warm: Gateway, project: Project) -> None:
    whole = warm.chat(project.key, QUESTION).json()
    answer = warm.chat(project.key, LIKE, stream=True)
    assert outcome(answer) == "HIT-SEMANTIC"
    events = [line[6:] for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    assert events.pop() == b"[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]


def test_an_answer_that_was_streamed_is_found_too(warm: Gateway) -> None:
    project = serving(warm)
    warm.chat(project.key, QUESTION, stream=True)
    assert outcome(warm.chat(project.key, LIKE)) == "HIT-SEMANTIC"


def test_an_exact_answer_comes_first(warm: Gateway, project: Project) -> None:
    assert outcome(warm.chat(project.key, QUESTION)) == "HIT"


def test_a_new_project_decides_and_never_serves(warm: Gateway, sim: Sim) -> None:
    project = warm.installation.project("new")
    warm.chat(project.key, QUESTION)
    like = warm.chat(project.key, LIKE)
    assert (outcome(like), sim.calls()) == ("MISS", 2)
    assert reasons(warm, like) == ("shadow-hit", None)
    told = rows_of(warm, project, 2)
    assert told[0][:2] == ("MISS", "empty")
    assert told[1][:2] == ("MISS", "shadow-hit")
    assert told[1][2] > 0.5
    assert told[1][3] >= 0.8


def test_where_it_is_off_nothing_is_looked_for_or_kept(warm: Gateway) -> None:
    project = serving(warm, semantic="off")
    warm.chat(project.key, QUESTION)
    assert outcome(warm.chat(project.key, LIKE)) == "MISS"
    assert [row[1] for row in rows_of(warm, project, 2)] == [None, None]
    warm.installation.run("project", "set", project.id, "semantic=on")
    assert outcome(warm.chat(project.key, "How could I reset my password?")) == "MISS"


def test_the_row_of_a_hit(warm: Gateway, project: Project) -> None:
    warm.chat(project.key, LIKE)
    warm.chat(project.key, UNLIKE)
    first, like, unlike = rows_of(warm, project, 3)
    assert like[:2] == ("HIT-SEMANTIC", "hit")
    assert like[5:] == (0, first[5])
    assert unlike[:2] == ("MISS", "miss")
    assert unlike[4]


@pytest.mark.parametrize("mode", ["exact", "refresh", "off"])
def test_a_request_may_do_without_it(warm: Gateway, project: Project, mode: str) -> None:
    assert outcome(warm.chat(project.key, LIKE, headers={"X-WatchLLM-Cache": mode})) in ("MISS", "BYPASS")


def test_a_request_cannot_ask_for_more_than_the_project_allows(warm: Gateway) -> None:
    project = warm.installation.project("shadow")
    warm.chat(project.key, QUESTION)
    assert outcome(warm.chat(project.key, LIKE, headers={"X-WatchLLM-Cache": "semantic"})) == "MISS"


def test_an_exact_request_is_not_kept_for_like_ones(warm: Gateway) -> None:
    project = serving(warm)
    warm.chat(project.key, QUESTION, headers={"X-WatchLLM-Cache": "exact"})
    assert outcome(warm.chat(project.key, LIKE)) == "MISS"


def test_a_refreshed_answer_is_kept_for_like_questions(warm: Gateway) -> None:
    project = serving(warm)
    warm.chat(project.key, QUESTION, headers={"X-WatchLLM-Cache": "refresh"})
    assert outcome(warm.chat(project.key, LIKE)) == "HIT-SEMANTIC"


def test_a_threshold_only_tightens(warm: Gateway) -> None:
    project = serving(warm, similarity_threshold="0.9999")
    warm.chat(project.key, QUESTION)
    loose = warm.chat(project.key, LIKE, headers={"X-WatchLLM-Cache-Threshold": "0.5"})
    assert outcome(loose) == "MISS"
    assert reasons(warm, loose) == ("miss", "similarity")
    warm.installation.run("project", "set", project.id, "similarity_threshold=0.5")
    again = "Please, how can I reset my password?"
    assert outcome(warm.chat(project.key, again, headers={"X-WatchLLM-Cache-Threshold": "1.00"})) == "MISS"
    assert outcome(warm.chat(project.key, again + " Thanks!", headers={"X-WatchLLM-Cache-Threshold": "0.50"})) == (
        "HIT-SEMANTIC"
    )


def test_the_least_confidence_is_the_projects(warm: Gateway) -> None:
    project = serving(warm, min_confidence="1")
    warm.chat(project.key, QUESTION)
    answer = warm.chat(project.key, LIKE)
    assert outcome(answer) == "MISS"
    assert reasons(warm, answer) == ("miss", "confidence")


def test_what_is_too_old_for_a_request_is_not_served(warm: Gateway, project: Project) -> None:
    assert outcome(warm.chat(project.key, LIKE, headers={"Cache-Control": "max-age=0"})) == "MISS"


def test_only_if_cached_is_satisfied_by_a_like_question(warm: Gateway, project: Project) -> None:
    headers = {"Cache-Control": "only-if-cached"}
    assert outcome(warm.chat(project.key, LIKE, headers=headers)) == "HIT-SEMANTIC"
    assert warm.chat(project.key, UNLIKE, headers=headers).status == 504


def test_a_project_can_hide_what_came_from_the_cache(warm: Gateway) -> None:
    project = serving(warm, hit_headers="off")
    answers = [warm.chat(project.key, text) for text in (QUESTION, QUESTION, LIKE)]
    assert answers[0].json() == answers[1].json() == answers[2].json()
    names = [{name for name, _ in answer.headers} for answer in answers]
    assert names[0] == names[1] == names[2]
    telling = (b"cache", b"saved", b"cost", b"ms", b"timing")
    assert not any(word in name.lower() for word in telling for name in names[0])
    assert [row[0] for row in rows_of(warm, project, 3)] == ["MISS", "HIT", "HIT-SEMANTIC"]


def test_a_hit_is_explained(warm: Gateway) -> None:
    project = serving(warm)
    first = warm.chat(project.key, QUESTION)
    like = warm.chat(project.key, LIKE)
    told = warm.explained(like)
    assert (told["outcome"], told["stored_by"]) == ("hit", first.header("X-Request-Id"))
    assert told["semantic"]["outcome"] == "hit"
    assert f"{told['semantic']['similarity']:.4f}" == like.header("X-WatchLLM-Cache-Similarity")
    shown = warm.installation.run("explain", like.header("X-Request-Id") or "").stdout
    assert "by meaning: hit" in shown


def test_a_miss_names_the_nearest_question_and_what_said_no(warm: Gateway) -> None:
    project = serving(warm)
    warm.chat(project.key, "Something else entirely")
    first = warm.chat(project.key, "Can I eat 2 eggs a day?")
    answer = warm.chat(project.key, "Can I eat 20 eggs a day?")
    told = warm.explained(answer)["semantic"]
    assert told["nearest"] == first.header("X-Request-Id")
    assert told["guard"] == told["reason"] == "number"
    assert told["confidence"] == 0
    assert "eggs" not in json.dumps(told)


def test_metrics_count_look_ups(warm: Gateway, project: Project) -> None:
    warm.chat(project.key, LIKE)
    text = admin_get(warm, "/metrics").body.decode()
    assert 'watchllm_semantic_lookups_total{outcome="hit",reason=""}' in text
    assert 'cache="HIT-SEMANTIC"' in text
    assert "watchllm_semantic_prompts" in text


LONG = "I have an account with my mail address and use it on three computers of the office. " * 20 + QUESTION


@pytest.mark.parametrize("mode", ["", "refresh"])
def test_a_long_question_is_found_too(warm: Gateway, mode: str) -> None:
    project = serving(warm)
    assert outcome(warm.chat(project.key, LONG, headers={"X-WatchLLM-Cache": mode} if mode else {})) == "MISS"
    wait_for(lambda: "empty" not in _looked(warm, project, LONG + " Why?"), "it to be kept")
    assert outcome(warm.chat(project.key, "Please! " + LONG, stream=True)) == "HIT-SEMANTIC"
    other = warm.chat(project.key, LONG.replace(QUESTION, UNLIKE))
    assert outcome(other) == "MISS"
    assert reasons(warm, other)[0] == "miss"
    only = {"Cache-Control": "only-if-cached"}
    assert warm.chat(project.key, LONG + " Who does it for me?", headers=only).status == 504


def _looked(gateway: Gateway, project: Project, text: str) -> tuple[str, str | None]:
    return reasons(gateway, gateway.chat(project.key, text, headers={"Cache-Control": "no-store"}))
