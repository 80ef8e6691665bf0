"""`watchllm eval`: the semantic cache judged on a file of pairs, with no server and nothing from the network."""

import json
from pathlib import Path

from tests.support.product import Installation

PAIRS = [
    {"id": "same", "a": "How do I boil an egg?", "b": "how do i boil an egg", "label": 1, "capability": "surface"},
    {"id": "other", "a": "Convert 5 km to miles", "b": "Convert 50 km to miles", "label": 0, "capability": "number"},
]


def written(folder: Path, rows: list[dict[str, object]]) -> str:
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_decisions_and_summary_as_one_document(installation: Installation, tmp_path: Path) -> None:
    told = installation.run_json("eval", written(tmp_path, PAIRS))
    assert told.keys() == {"decisions", "summary"}
    same, other = told["decisions"]
    assert same.keys() == {"id", "similarity", "confidence", "hit", "guard"}
    assert (same["id"], same["hit"], same["guard"]) == ("same", True, None)
    assert (other["id"], other["hit"]) == ("other", False)
    assert other["guard"] == "number"
    assert told["summary"]["all"]["pairs"] == 2
    assert told["summary"]["number"]["false_hit_rate"] == 0.0


def test_a_table_for_people_and_stricter_settings(installation: Installation, tmp_path: Path) -> None:
    file = written(tmp_path, PAIRS)
    assert "surface" in installation.run("eval", file).stdout
    strict = installation.run_json("eval", file, "--min-confidence", "1.0")
    assert not any(decision["hit"] for decision in strict["decisions"])


def test_without_labels_nothing_is_said_of_right_and_wrong(installation: Installation, tmp_path: Path) -> None:
    told = installation.run_json("eval", written(tmp_path, [{"id": "1", "a": "Hi", "b": "Hello there"}]))
    assert told["summary"]["all"]["precision"] is None


def test_a_wrong_file_is_wrong_usage(installation: Installation, tmp_path: Path) -> None:
    bad = installation.run("eval", written(tmp_path, [{"id": "1", "a": "Hi"}]), check=False)
    assert bad.returncode == 2
    assert "line 1" in bad.stderr
    assert installation.run("eval", str(tmp_path / "none.jsonl"), check=False).returncode == 2


LOG: list[dict[str, object]] = [
    {
        "prompt": "How do I boil an egg?",
        "model": "gpt-4o-mini",
        "usage": {"prompt_tokens": 9, "completion_tokens": 500},
    },
    {
        "prompt": "how do i boil an egg \u001b[2J pls",
        "model": "gpt-4o-mini",
        "usage": {"prompt_tokens": 9, "completion_tokens": 500},
    },
    {"messages": [{"role": "user", "content": "How do I boil an egg?"}], "cost": 0.5},
    {"messages": [{"role": "user", "content": "How do I boil an egg?"}], "cost": 0.5},
]


def test_a_log_is_replayed_and_every_pair_shown(installation: Installation, tmp_path: Path) -> None:
    told = installation.run_json(
        "eval", "--log", written(tmp_path, [LOG[0], {**LOG[1], "prompt": "how do i boil an egg"}])
    )
    (pair,) = told["served"]
    assert (pair["line"], pair["stored_line"]) == (2, 1)
    assert (pair["stored"], pair["asked"]) == ("How do I boil an egg?", "how do i boil an egg")
    assert pair["saved_usd"] > 0, "by the price book"
    assert told["summary"]["hit_rate"] == 0.5
    assert told["summary"]["saved_usd_semantic"] == pair["saved_usd"]
    shown = installation.run("eval", "--log", written(tmp_path, LOG)).stdout
    assert "exact_hits" in shown
    assert "0.500000" in shown


def test_a_terminal_obeys_no_logged_prompt(installation: Installation, tmp_path: Path) -> None:
    rows = [{"prompt": f"{prompt} \u001b[2J"} for prompt in ("How do I boil an egg?", "how do i boil an egg")]
    shown = installation.run("eval", "--log", written(tmp_path, list(rows))).stdout
    assert "line 2 would have had the answer to line 1" in shown
    assert "\u001b" not in shown


def test_nothing_is_printed_of_a_log_with_a_bad_line(installation: Installation, tmp_path: Path) -> None:
    bad = installation.run("eval", "--json", "--log", written(tmp_path, [*LOG, {"promt": "x"}]), check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "line 5" in bad.stderr


def test_either_pairs_or_a_log(installation: Installation, tmp_path: Path) -> None:
    file = written(tmp_path, PAIRS)
    assert installation.run("eval", check=False).returncode == 2
    assert installation.run("eval", file, "--log", file, check=False).returncode == 2
