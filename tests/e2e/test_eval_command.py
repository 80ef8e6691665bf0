"""`watchllm eval`: the semantic cache judged on a file of pairs, with no server and nothing from the network."""

import json
from pathlib import Path

from tests.support.cross_encoder_model import make_cross_encoder
from tests.support.product import Gateway, Installation, Sim

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


def test_an_id_is_given_back_as_it_was_given(installation: Installation, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{**PAIRS[0], "id": name} for name in (7, "7", "seven")]
    told = installation.run_json("eval", written(tmp_path, rows))
    assert [one["id"] for one in told["decisions"]] == [7, "7", "seven"]
    twice = installation.run("eval", written(tmp_path, [rows[0], rows[0]]), check=False)
    assert (twice.returncode, "the id '7' was there before" in twice.stderr) == (2, True)


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


DOUBTFUL: list[dict[str, object]] = [
    {
        "id": "doubt",
        "a": "How do I reset the password of my router?",
        "b": "Which steps restore the login of my router?",
        "label": 1,
    },
    {
        "id": "unlike",
        "a": "How do I reset the password of my router?",
        "b": "How can I update the firmware of my router?",
        "label": 0,
    },
    *PAIRS,
]


def test_a_judge_decides_what_is_in_doubt(installation: Installation, tmp_path: Path) -> None:
    file = written(tmp_path, DOUBTFUL)
    assert [one["hit"] for one in installation.run_json("eval", file)["decisions"]] == [False, False, True, False]
    told = installation.run_json("eval", file, "--judge", "--judge-usd", "0.001", "--main-usd", "0.01")
    assert [one["hit"] for one in told["decisions"]] == [True, False, True, False]
    assert [one.get("judge", "not asked") for one in told["decisions"]] == [True, False, "not asked", "not asked"]
    judge = told["judge"]
    assert (judge["asked"], judge["yes"], judge["wrong_yes"], judge["missed_yes"]) == (2, 1, 0, 0)
    assert (judge["cost_usd"], judge["saved_usd"], judge["saved_usd_per_asked"]) == (0.002, 0.01, 0.004)
    assert (judge["ms_per_asked"], judge["saved_ms_per_asked"]) == (200.0, 800.0)
    shown = installation.run("eval", "--judge", file, "--main-ms", "100").stdout
    assert "saved_ms_per_asked   -150.0" in shown
    by_book = installation.run_json("eval", file, "--judge", "sim/judge", "--main-model", "gpt-4o-mini")["judge"]
    assert by_book["saved_usd"] > 0


def test_another_judge_is_asked_through_the_gateway(
    gateway: Gateway, sim: Sim, installation: Installation, tmp_path: Path
) -> None:
    file = written(tmp_path, DOUBTFUL)
    arguments = ("eval", file, "--judge", "openai/gpt-4o-mini+judge", "--judge-url", gateway.base_url)
    refused = installation.run(*arguments, check=False)
    assert (refused.returncode, "WATCHLLM_API_KEY" in refused.stderr) == (2, True)
    installation.environment["WATCHLLM_API_KEY"] = gateway.installation.project("eval").key
    judge = installation.run_json(*arguments)["judge"]
    assert (judge["asked"], judge["yes"], judge["missed_yes"], judge["cost_usd"]) == (2, 0, 1, None)
    assert judge["ms_per_asked"] > 0
    assert sim.calls() == 2
    bare = installation.run(*arguments[:-1], gateway.base_url.removesuffix("/v1"), check=False)
    assert (bare.returncode, "with /v1" in bare.stderr) == (2, True)
    broken = installation.run(*arguments[:-1], "http://127.0.0.1:9/v1", check=False)
    assert (broken.returncode, "could not be asked" in broken.stderr) == (1, True)


def test_a_log_has_no_judge(installation: Installation, tmp_path: Path) -> None:
    refused = installation.run("eval", "--log", written(tmp_path, [{"prompt": "x"}]), "--judge", check=False)
    assert refused.returncode == 2


def test_a_cross_encoder_decides_what_is_in_doubt_before_the_judge(installation: Installation, tmp_path: Path) -> None:
    file = written(tmp_path, DOUBTFUL)
    model = str(make_cross_encoder(tmp_path / "model", {}))
    told = installation.run_json("eval", file, "--cross-encoder", model, "--judge")
    assert [one["hit"] for one in told["decisions"]] == [True, True, True, False]
    assert [one.get("logit") for one in told["decisions"]] == [6.0, 6.0, None, None]
    said = told["cross_encoder"]
    assert (said["asked"], said["yes"], said["wrong_yes"], said["missed_yes"], said["too_long"]) == (2, 2, 1, 0, 0)
    assert (said["calibration"], said["ranked_right"], said["fits"]) == ("1,0", 0.5, None)
    assert said["ms_per_asked"] > 0
    assert told["judge"]["asked"] == 0
    wary = installation.run_json("eval", file, "--cross-encoder", model, "--calibration", "1,-20", "--judge")
    assert [one["hit"] for one in wary["decisions"]] == [True, False, True, False]
    assert (wary["cross_encoder"]["yes"], wary["judge"]["asked"]) == (0, 2)
    installation.environment["WATCHLLM_CROSS_ENCODER_CALIBRATION"] = "1,-20"
    assert "calibration   1,-20" in installation.run("eval", file, "--cross-encoder", model).stdout


def test_the_calibration_that_it_finds_is_taken(installation: Installation, tmp_path: Path) -> None:
    rows = [{**one, "id": f"{one['id']}{number}"} for number in range(12) for one in DOUBTFUL[:2]]
    model = str(make_cross_encoder(tmp_path / "model", {"firmware": -3.0}, alike=9.0))
    file = written(tmp_path, rows)
    before = installation.run_json("eval", file, "--cross-encoder", model)
    assert (before["cross_encoder"]["wrong_yes"], before["cross_encoder"]["ranked_right"]) == (12, 1.0)
    fits = before["cross_encoder"]["fits"]
    after = installation.run_json("eval", file, "--cross-encoder", model, "--calibration", fits)
    assert (after["cross_encoder"]["wrong_yes"], after["cross_encoder"]["missed_yes"]) == (0, 0)


def test_a_cross_encoder_that_cannot_be_used_is_wrong_usage(installation: Installation, tmp_path: Path) -> None:
    file, model = written(tmp_path, PAIRS), str(make_cross_encoder(tmp_path / "model", {}))
    for arguments, told in (
        ((file, "--cross-encoder", "/nowhere/model"), "there is no folder"),
        ((file, "--cross-encoder", model, "--calibration", "-1,0"), "SLOPE,INTERCEPT"),
        ((file, "--calibration", "1,0"), "--cross-encoder"),
        (("--log", file, "--cross-encoder", model), "takes a file of pairs"),
    ):
        refused = installation.run("eval", *arguments, check=False)
        assert (refused.returncode, told in " ".join(refused.stderr.replace("│", " ").split())) == (2, True)
