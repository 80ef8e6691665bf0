"""The proxy decides by the very function that `watchllm eval` judges: the same pairs get the same decisions."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.product import Gateway, Installation, Sim, upstream_environment
from tests.support.raw_http import RawResponse
from tests.support.semantic import outcome, reasons, rows_of, serving, wait_until_warm
from tests.support.waiting import wait_for

PAIRS = Path(__file__).parents[2] / "benchmarks" / "semantic" / "pairs_report.jsonl"
COUNT = 200


@pytest.fixture
def lines() -> list[str]:
    return random.Random(5).sample(PAIRS.read_text().splitlines(), COUNT)


@pytest.fixture
def chosen(lines: list[str], tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(lines))
    return file


def test_two_hundred_pairs_get_through_the_socket_what_eval_decides(
    gateway: Gateway, lines: list[str], chosen: Path
) -> None:
    wait_until_warm(gateway)
    decisions = gateway.installation.run_json("eval", str(chosen))["decisions"]
    assert len(decisions) == COUNT
    assert 10 < sum(decision["hit"] for decision in decisions) < COUNT - 10

    project = serving(gateway)
    for line in lines:
        pair = json.loads(line)
        for text in (pair["a"], pair["b"]):
            context = {"role": "system", "content": f"You answer in pair {pair['id']}."}
            gateway.chat(project.key, "", messages=[context, {"role": "user", "content": text}])
    found = {
        decision["id"]: (cache == "HIT-SEMANTIC", similarity, confidence, reason)
        for decision, (cache, _, similarity, confidence, reason, *_) in zip(
            decisions, rows_of(gateway, project, 2 * COUNT)[1::2], strict=True
        )
    }
    for decision in decisions:
        hit, similarity, confidence, reason = found[decision["id"]]
        assert hit is decision["hit"], decision
        assert abs(similarity - decision["similarity"]) < 1e-3, decision
        assert abs(confidence - decision["confidence"]) < 1e-3, decision
        assert hit or reason == (decision["guard"] or "confidence"), decision


@pytest.fixture
def knowing(installation: Installation, chosen: Path) -> Iterator[Sim]:
    """A provider whose judge knows the labels."""
    sim = installation.start_sim("--judge-labels", str(chosen))
    yield sim
    sim.process.stop()


@pytest.mark.parametrize("floor", ["", "0.85"])
def test_they_get_what_eval_decides_with_a_judge_too(
    installation: Installation, knowing: Sim, lines: list[str], chosen: Path, floor: str
) -> None:
    options = ("--similarity-threshold", floor) if floor else ()
    evaluated = installation.run_json("eval", str(chosen), "--judge", *options)
    decisions = {decision["id"]: decision for decision in evaluated["decisions"]}
    recall = evaluated["summary"]["all"]["recall"]
    assert recall == evaluated["summary"]["all"]["recall_judged"]
    consulted = {name for name, decision in decisions.items() if "judge" in decision}
    assert 5 < len(consulted) < COUNT / 2

    installation.environment |= upstream_environment(knowing.base_url)
    installation.project("first")
    gateway = wait_until_warm(installation.start_proxy())
    settings = {"judge_model": "openai/gpt-4o-mini+judge", "judge_timeout_ms": "10000", "judge_per_minute": "100000"}
    project = serving(gateway, similarity_threshold=floor, **settings)

    def chat(pair: dict[str, str], text: str) -> RawResponse:
        context = {"role": "system", "content": f"You answer in pair {pair['id']}."}
        messages = [context, {"role": "user", "content": text}]
        unstored = {} if text == pair["a"] else {"Cache-Control": "no-store"}
        return gateway.chat(project.key, "", messages=messages, headers=unstored)

    pairs = [json.loads(line) for line in lines]
    for pair in pairs:
        chat(pair, pair["a"])
    # They are written in this order, and only what was written can be shown to a judge.
    last = next(pair for pair in reversed(pairs) if pair["id"] in consulted)
    wait_for(lambda: reasons(gateway, chat(last, last["b"]))[1] != "confidence", "the stored questions to be written")
    for pair in pairs:
        assert outcome(chat(pair, pair["b"])) == ("HIT-SEMANTIC" if decisions[pair["id"]]["hit"] else "MISS"), pair
    bodies = [json.loads(request["body"]) for request in knowing.requests() if request["body"]]
    assert len([body for body in bodies if "question_a" in body["messages"][-1]["content"]]) == len(consulted)
