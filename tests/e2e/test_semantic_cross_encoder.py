"""A cross-encoder is asked in doubt, before any judge: what it lets through, and what is remembered."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin import admin_get
from tests.support.cross_encoder_model import make_cross_encoder
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawResponse
from tests.support.semantic import outcome, reasons, serving, state_of, wait_until_warm
from tests.support.waiting import wait_for

STORED = "How do I reset the password of my router?"
EQUAL = "The password of my router: how do I reset?"
"""The same words, of which the simulated judge says yes."""
OTHER = "Which steps restore the login of my router?"
FORBIDDEN = "How do I not reset the password of my router?"
JUDGE = "openai/gpt-4o-mini+judge"
NO_TO_OTHER = {"login": -20.0}
NO_TO_ALL = {"router": -20.0}
UNSTORED = {"Cache-Control": "no-store"}
_NOT_ASKED = ("miss", "confidence")

Start = Callable[..., Gateway]


@pytest.fixture
def start(installation: Installation, sim: Sim, tmp_path: Path) -> Start:
    """Starts a proxy with a cross-encoder of these words; waits for both."""

    def started(words: dict[str, float], **settings: str) -> Gateway:
        model = make_cross_encoder(tmp_path / "model", words)
        installation.environment |= upstream_environment(sim.base_url) | {
            "WATCHLLM_CROSS_ENCODER": str(model),
            "WATCHLLM_CROSS_ENCODER_TIMEOUT": "10",
            **settings,
        }
        installation.project("first")
        return wait_until_warm(installation.start_proxy())

    return started


def asking(gateway: Gateway, **settings: str) -> Project:
    """A project in which STORED was answered."""
    project = serving(gateway, "in doubt", **settings)
    assert outcome(gateway.chat(project.key, STORED)) == "MISS"
    return project


def asked(gateway: Gateway, project: Project, text: str, **fields: object) -> RawResponse:
    """The answer to a like question, once the stored one was written so that it can be read."""

    def ask() -> RawResponse | None:
        answer = gateway.chat(project.key, text, headers=UNSTORED, **fields)
        return None if reasons(gateway, answer) == _NOT_ASKED else answer

    return wait_for(ask, "the cross-encoder to be asked")


def read(gateway: Gateway, outcome: str = "read") -> int:
    """How many pairs it has read."""
    name = f'watchllm_cross_encoder_pairs_total{{outcome="{outcome}"}} '
    lines = admin_get(gateway, "/metrics").body.decode().splitlines()
    return int(next((line.removeprefix(name) for line in lines if line.startswith(name)), "0"))


def judged(sim: Sim) -> list[dict[str, Any]]:
    """What judges were asked."""
    bodies = [json.loads(request["body"]) for request in sim.requests() if request["body"]]
    return [body for body in bodies if body["messages"][0]["role"] == "system"]


def test_a_yes_makes_a_hit_and_is_remembered(start: Start) -> None:
    gateway = start(NO_TO_OTHER)
    project = asking(gateway)
    stored = gateway.chat(project.key, STORED)
    like = asked(gateway, project, EQUAL)
    assert (outcome(like), reasons(gateway, like)) == ("HIT-SEMANTIC", ("hit", "cross_encoder"))
    assert like.json() == stored.json()
    assert 0.8 < float(like.header("X-WatchLLM-Cache-Confidence") or "") < 1
    assert "cross-encoder said" in gateway.installation.run("explain", like.header("X-Request-Id") or "").stdout
    assert read(gateway) == 1
    again = asked(gateway, project, EQUAL, stream=True)
    assert (outcome(again), again.header("X-WatchLLM-Cache-Confidence")) == ("HIT-SEMANTIC", "0.8000")
    assert read(gateway) == 1


def test_a_no_is_a_miss_and_is_remembered(start: Start) -> None:
    gateway = start(NO_TO_OTHER)
    project = asking(gateway)
    for _ in range(2):
        other = asked(gateway, project, OTHER)
        assert (outcome(other), reasons(gateway, other)) == ("MISS", ("miss", "cross_encoder"))
    assert read(gateway) == 1


def test_it_overrules_no_guard_and_is_not_asked_of_what_is_sure(start: Start) -> None:
    gateway = start({})  # says yes to everything
    project = asking(gateway)
    assert outcome(asked(gateway, project, EQUAL)) == "HIT-SEMANTIC"
    assert read(gateway) == 1
    assert outcome(gateway.chat(project.key, "Please, how do I reset the password of my router?")) == "HIT-SEMANTIC"
    forbidden = gateway.chat(project.key, FORBIDDEN, headers=UNSTORED)
    assert reasons(gateway, forbidden) == ("miss", "negation")
    unlike = gateway.chat(project.key, "Who wrote the opera about the barber of Seville?", headers=UNSTORED)
    assert reasons(gateway, unlike) == _NOT_ASKED
    assert read(gateway) == 1


def test_what_it_says_has_to_lift_the_confidence_far_enough(start: Start) -> None:
    gateway = start({}, WATCHLLM_CROSS_ENCODER_CALIBRATION="1,-20")
    project = asking(gateway)
    assert reasons(gateway, asked(gateway, project, EQUAL)) == ("miss", "cross_encoder")


def test_a_verdict_survives_a_restart_and_is_of_one_model(start: Start, tmp_path: Path) -> None:
    gateway = start({})
    project = asking(gateway)
    assert outcome(asked(gateway, project, EQUAL)) == "HIT-SEMANTIC"
    gateway.stop()
    again = wait_until_warm(gateway.installation.start_proxy())
    assert outcome(again.chat(project.key, EQUAL)) == "HIT-SEMANTIC"
    assert read(again) == 0
    again.stop()
    make_cross_encoder(tmp_path / "model", NO_TO_ALL)
    other = wait_until_warm(gateway.installation.start_proxy())
    assert reasons(other, asked(other, project, EQUAL)) == ("miss", "cross_encoder")
    assert read(other) == 1


def test_a_project_can_do_without_it(start: Start) -> None:
    gateway = start({})
    project = asking(gateway)
    assert outcome(asked(gateway, project, EQUAL)) == "HIT-SEMANTIC"
    gateway.installation.run("project", "set", project.id, "cross_encoder=off")
    assert reasons(gateway, gateway.chat(project.key, EQUAL, headers=UNSTORED)) == _NOT_ASKED
    assert read(gateway) == 1


def test_who_does_not_answer_in_time_costs_a_miss_and_is_remembered(start: Start) -> None:
    gateway = start({}, WATCHLLM_CROSS_ENCODER_TIMEOUT="0.000001")
    project = asking(gateway)
    late = asked(gateway, project, EQUAL)
    assert (outcome(late), reasons(gateway, late)) == ("MISS", ("miss", "cross_encoder_timeout"))
    wait_for(lambda: "took longer" in (state_of(gateway) or ""), "the trouble to be told")
    assert gateway.get("/health/ready").status == 200
    wait_for(lambda: outcome(asked(gateway, project, EQUAL)) == "HIT-SEMANTIC", "the verdict")
    assert read(gateway, "late") == 1


def test_requests_that_ask_the_same_are_read_once(start: Start) -> None:
    gateway = start(NO_TO_OTHER)
    project = asking(gateway)
    assert reasons(gateway, asked(gateway, project, OTHER)) == (
        "miss",
        "cross_encoder",
    )  # STORED can be read now
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: gateway.chat(project.key, EQUAL), range(4)))
    assert [outcome(answer) for answer in answers] == ["HIT-SEMANTIC"] * 4
    assert read(gateway) == 2


def test_projects_share_no_verdicts(start: Start) -> None:
    gateway = start({})
    for count in (1, 2):
        assert outcome(asked(gateway, asking(gateway), EQUAL)) == "HIT-SEMANTIC"
        assert read(gateway) == count


def test_what_it_does_not_say_yes_to_the_judge_is_asked_about(start: Start, sim: Sim) -> None:
    gateway = start(NO_TO_ALL)
    project = asking(gateway, judge_model=JUDGE, judge_timeout_ms="10000")
    like = asked(gateway, project, EQUAL)
    assert (outcome(like), reasons(gateway, like)) == ("HIT-SEMANTIC", ("hit", "judge"))
    assert reasons(gateway, asked(gateway, project, OTHER)) == ("miss", "judge")
    assert (read(gateway), len(judged(sim))) == (2, 2)
    for text, reason in ((EQUAL, ("hit", "judge")), (OTHER, ("miss", "judge"))):
        assert reasons(gateway, asked(gateway, project, text)) == reason
    assert (read(gateway), len(judged(sim))) == (2, 2)


def test_what_it_says_yes_to_no_judge_is_paid_for(start: Start, sim: Sim) -> None:
    gateway = start({})
    project = asking(gateway, judge_model=JUDGE, judge_timeout_ms="10000")
    assert reasons(gateway, asked(gateway, project, EQUAL)) == ("hit", "cross_encoder")
    assert judged(sim) == []


def test_in_shadow_nobody_waits_for_it(start: Start) -> None:
    gateway = start({})
    project = asking(gateway, semantic="shadow")
    first = asked(gateway, project, EQUAL)
    assert (outcome(first), reasons(gateway, first)) == ("MISS", ("miss", "cross_encoder_asked"))
    wait_for(lambda: reasons(gateway, asked(gateway, project, EQUAL)) == ("shadow-hit", "cross_encoder"), "the verdict")


def test_only_if_cached_asks_it(start: Start) -> None:
    gateway = start(NO_TO_OTHER)
    project = asking(gateway)
    assert reasons(gateway, asked(gateway, project, OTHER)) == (
        "miss",
        "cross_encoder",
    )  # STORED can be read now
    only = {"Cache-Control": "only-if-cached"}
    assert outcome(gateway.chat(project.key, EQUAL, headers=only)) == "HIT-SEMANTIC"
    assert gateway.chat(project.key, OTHER, headers=only).status == 504


def test_what_it_cannot_read_whole_it_does_not_judge(start: Start) -> None:
    gateway = start({})
    project = asking(gateway)
    long = "It is the one with two antennas that stands in the hall beside the telephone. " * 3
    gateway.chat(project.key, long + STORED)
    assert reasons(gateway, asked(gateway, project, long + EQUAL)) == ("miss", "cross_encoder_long")


def test_one_that_is_not_there_costs_the_doubts_only(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url) | {"WATCHLLM_CROSS_ENCODER": "/nowhere/model"}
    installation.project("first")
    gateway = installation.start_proxy()
    wait_for(lambda: "there is no folder /nowhere/model" in (state_of(gateway) or ""), "the trouble to be told")
    assert gateway.get("/health/ready").status == 200
    project = asking(gateway)
    assert outcome(gateway.chat(project.key, f"Please, {STORED}", headers=UNSTORED)) == "HIT-SEMANTIC"
    assert reasons(gateway, gateway.chat(project.key, EQUAL, headers=UNSTORED)) == _NOT_ASKED
    told = installation.run("doctor", check=False).stdout
    assert "there is no folder /nowhere/model" in told
    assert "WATCHLLM_CROSS_ENCODER" in told


def test_doctor_says_when_it_is_not_calibrated(start: Start) -> None:
    gateway = start({})
    assert "watchllm eval PAIRS.jsonl --cross-encoder" in gateway.installation.run("doctor", check=False).stdout
    gateway.installation.environment |= {"WATCHLLM_CROSS_ENCODER_CALIBRATION": "0.7,-1"}
    assert "watchllm eval" not in gateway.installation.run("doctor", check=False).stdout


@pytest.mark.parametrize("calibration", ["1", "0,1", "-1,0", "1,2,3", "one,two", "nan,1", "1,nan", "1,inf"])
def test_a_calibration_of_another_form_is_refused(installation: Installation, calibration: str) -> None:
    installation.environment |= {"WATCHLLM_CROSS_ENCODER_CALIBRATION": calibration}
    refused = installation.run("doctor", check=False)
    assert (refused.returncode, "SLOPE,INTERCEPT" in refused.stderr) == (2, True)
