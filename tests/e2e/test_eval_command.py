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
