"""`watchllm cache` against a running proxy: what it purges is gone when it returns, and nothing else is."""

import json
import time

import pytest

from tests.support.product import Gateway, Project


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
