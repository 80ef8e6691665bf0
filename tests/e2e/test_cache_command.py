"""`watchllm cache` against a running proxy: what it purges is gone when it returns, and nothing else is."""

import json
import time

import pytest

from tests.support.product import Gateway, Project
from tests.support.raw_http import RawResponse


def cached(gateway: Gateway, key: str, text: str, **fields: object) -> str | None:
    return gateway.chat(key, text, **fields).header("X-WatchLLM-Cache")


def purge(gateway: Gateway, project: Project, *options: str) -> int:
    return int(gateway.installation.run_json("cache", "purge", "--project", project.id, *options)["invalidated"])


def test_a_purge_is_in_force_when_it_returns(gateway: Gateway, project: Project) -> None:
    other = gateway.installation.project("not purged")
    test_key = gateway.installation.key(project.id, test=True)
    for key in (project.key, test_key, other.key):
        cached(gateway, key, "What is purged?")
        assert cached(gateway, key, "What is purged?") == "HIT"

    assert purge(gateway, project) == 2

    assert cached(gateway, project.key, "What is purged?") == "MISS"
    assert cached(gateway, test_key, "What is purged?") == "MISS"
    assert cached(gateway, other.key, "What is purged?") == "HIT"
    # What is asked after the purge is kept again.
    assert cached(gateway, project.key, "What is purged?") == "HIT"


def test_filters_hold_together(gateway: Gateway, project: Project) -> None:
    for model in ("gpt-4o-mini", "gpt-4o"):
        cached(gateway, project.key, "Which model?", model=model)

    assert purge(gateway, project, "--model", "gpt-4o", "--kind", "embeddings") == 0
    assert purge(gateway, project, "--model", "gpt-4o", "--before", "2020-01-31T00:00:00Z") == 0
    assert purge(gateway, project, "--model", "openai/gpt-4o", "--before", str(int(time.time()) + 60)) == 1

    assert cached(gateway, project.key, "Which model?", model="gpt-4o-mini") == "HIT"
    assert cached(gateway, project.key, "Which model?", model="gpt-4o") == "MISS"
    assert purge(gateway, project, "--all") == 2


def entry_of(gateway: Gateway, answer: RawResponse) -> str:
    return str(gateway.explained(answer)["entry"])


def test_one_entry_can_be_purged(gateway: Gateway, project: Project) -> None:
    missed = gateway.chat(project.key, "Which entry?")
    hit = gateway.chat(project.key, "Which entry?")
    cached(gateway, project.key, "Which other?")
    entry = entry_of(gateway, hit)
    assert entry == entry_of(gateway, missed)
    assert entry in gateway.installation.run("explain", hit.header("X-Request-Id") or "").stdout
    assert entry in gateway.installation.run("explain", missed.header("X-Request-Id") or "").stdout
    stranger = gateway.installation.project("of another")
    assert purge(gateway, stranger, "--entry", entry) == 0
    assert purge(gateway, project, "--entry", entry, "--model", "gpt-4o") == 0
    assert cached(gateway, project.key, "Which entry?") == "HIT"

    assert purge(gateway, project, "--entry", entry) == 1

    assert cached(gateway, project.key, "Which entry?") == "MISS"
    assert cached(gateway, project.key, "Which other?") == "HIT"
    assert cached(gateway, project.key, "Which entry?") == "HIT"


@pytest.mark.parametrize("which", [0, 1])
def test_the_entry_of_a_request_can_be_purged(gateway: Gateway, project: Project, which: int) -> None:
    answers = [gateway.chat(project.key, "Whose entry?") for _ in range(2)]
    cached(gateway, project.key, "Which other?")
    assert purge(gateway, project, "--request", answers[which].header("X-Request-Id") or "") == 1
    assert cached(gateway, project.key, "Whose entry?") == "MISS"
    assert cached(gateway, project.key, "Which other?") == "HIT"


def test_the_answers_that_a_key_brought_can_be_purged(gateway: Gateway, project: Project) -> None:
    with gateway.installation.control_plane() as plane:
        other = plane.create_key(project.id)
    cached(gateway, project.key, "Who asked?")
    cached(gateway, other.secret, "Who else asked?")
    assert purge(gateway, project, "--source-key", other.record.id, "--answers", "--model", "gpt-4o") == 0
    assert purge(gateway, project, "--source-key", other.record.id, "--answers") == 1
    assert cached(gateway, project.key, "Who asked?") == "HIT"
    assert cached(gateway, project.key, "Who else asked?") == "MISS"


def test_a_request_without_an_entry_says_so(gateway: Gateway, project: Project) -> None:
    unstored = gateway.chat(project.key, "Not kept", headers={"Cache-Control": "no-store"})
    arguments = ("cache", "purge", "--project", project.id, "--request")
    done = gateway.installation.run(*arguments, unstored.header("X-Request-Id") or "", check=False)
    assert (done.returncode, "stored nothing" in done.stderr) == (1, True)
    done = gateway.installation.run(*arguments, f"req_{'0' * 32}", check=False)
    assert (done.returncode, "no proxy of this host remembers" in done.stderr) == (1, True)


def test_stats_tell_live_and_test_keys_apart(gateway: Gateway, project: Project) -> None:
    test_key = gateway.installation.key(project.id, test=True)
    for number in range(2):
        cached(gateway, project.key, f"How many? {number}")
    cached(gateway, test_key, "How many?")
    # The proxy commits in groups; its own count of the project waits for what is pending.
    assert gateway.get("/v1/cache/stats", project.key).json()["entries"] == 2

    report = gateway.installation.run_json("cache", "stats", "--project", project.id)

    live, test = report["projects"]
    assert (live["keys"], live["entries"], live["by_kind"]) == ("live", 2, {"generate": 2})
    assert (test["keys"], test["entries"]) == ("test", 1)
    assert live["bytes"] > 0
    assert report["total"]["entries"] >= 3
    assert report["total"]["bytes"] <= report["total"]["max_bytes"]
    assert project.id in gateway.installation.run("cache", "stats").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["stats", "--project", "prj_unknown", "--json"], 1, "no project has the id"),
        (["purge", "--project", "prj_unknown", "--json"], 1, "no project has the id"),
        (["purge"], 2, "--project"),
        (["purge", "--project", "p", "--before", "soon"], 2, "--before"),
        (["purge", "--project", "p", "--kind", "poems"], 2, "--kind"),
        (["purge", "--project", "p", "--all", "--model", "gpt-4o"], 2, "--all"),
        (["purge", "--project", "p", "--entry", "ent_12"], 2, "--entry"),
        (["purge", "--project", "p", "--entry", f"ent_{'G' * 64}"], 2, "--entry"),
        (["purge", "--project", "p", "--request", "12"], 2, "--request"),
        (["purge", "--project", "p", "--request", f"req_{'0' * 32}", "--entry", f"ent_{'0' * 64}"], 2, "--entry"),
        (["purge", "--project", "p", "--answers"], 2, "--source-key"),
    ],
)
def test_what_fails_says_so(gateway: Gateway, arguments: list[str], code: int, said: str) -> None:
    done = gateway.installation.run("cache", *arguments, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_cache_of_nothing_is_empty(gateway: Gateway, project: Project) -> None:
    done = gateway.installation.run("cache", "stats", "--project", project.id, "--json")
    assert [row["entries"] for row in json.loads(done.stdout)["projects"]] == [0, 0]
