"""What like questions find lives as long as the answers do: TTL, invalidation, purges, restarts, quotas, bad files."""

import shutil

import pytest

from tests.support.product import Gateway, Installation, Sim, upstream_environment
from tests.support.semantic import LIKE, QUESTION, outcome, reasons, serving, state_of, wait_until_warm
from tests.support.waiting import wait_for

OTHERS = ["How could I reset my password?", "Please tell me how I can reset my password", "how do i reset my pasword"]


@pytest.fixture
def own(installation: Installation, sim: Sim) -> Gateway:
    """A proxy of this test alone."""
    installation.environment |= upstream_environment(sim.base_url)
    installation.project("first")
    return wait_until_warm(installation.start_proxy())


def test_what_expired_is_not_served(gateway: Gateway) -> None:
    project = serving(wait_until_warm(gateway), cache_ttl="1")
    gateway.chat(project.key, QUESTION)
    wait_for(lambda: outcome(gateway.chat(project.key, QUESTION)) == "MISS", "the answer to expire")
    # It was stored anew just now; what is asked for is an age that it will have soon.
    wait_for(
        lambda: outcome(gateway.chat(project.key, LIKE, headers={"Cache-Control": "no-store"})) == "MISS",
        "the prompt to expire",
    )


def test_an_invalidated_answer_is_not_served(gateway: Gateway) -> None:
    project = serving(wait_until_warm(gateway))
    key = gateway.installation.key(project.id, scopes=("inference", "cache:write"))
    gateway.chat(project.key, QUESTION)
    told = gateway.post("/v1/cache/invalidate", key, {"model": "gpt-4o-mini"})
    assert told.json()["invalidated"] == 1
    assert outcome(gateway.chat(project.key, LIKE)) == "MISS"


def test_a_purge_is_in_force_when_it_returns(gateway: Gateway) -> None:
    project = serving(wait_until_warm(gateway))
    gateway.chat(project.key, QUESTION)
    assert gateway.installation.run_json("cache", "purge", "--project", project.id)["invalidated"] == 1
    missed = gateway.chat(project.key, LIKE, headers=_UNSTORED)
    assert outcome(missed) == "MISS"
    assert reasons(gateway, missed) in (("miss", "gone"), ("empty", None))
    wait_for(
        lambda: reasons(gateway, gateway.chat(project.key, LIKE, headers=_UNSTORED)) == ("empty", None),
        "the prompt to be forgotten, too",
        within=5,  # before a look-up that finds it would see to that
    )
    gateway.chat(project.key, LIKE)
    assert outcome(gateway.chat(project.key, OTHERS[0])) == "HIT-SEMANTIC"  # kept after it


def test_what_one_key_stored_can_be_taken_from_like_questions(gateway: Gateway) -> None:
    project = serving(wait_until_warm(gateway))
    with gateway.installation.control_plane() as plane:
        other = plane.create_key(project.id)
    gateway.chat(project.key, "What is the capital of France?")
    gateway.chat(other.secret, QUESTION)
    assert outcome(gateway.chat(project.key, LIKE)) == "HIT-SEMANTIC"
    purge = ("cache", "purge", "--project", project.id, "--source-key", other.record.id)
    wait_for(lambda: gateway.installation.run_json(*purge)["invalidated"], "what that key stored to be written")
    wait_for(lambda: outcome(gateway.chat(project.key, LIKE, headers=_UNSTORED)) == "MISS", "the purge to be followed")
    assert outcome(gateway.chat(project.key, QUESTION)) == "HIT"
    assert outcome(gateway.chat(project.key, "what's the capital of France")) == "HIT-SEMANTIC"


_UNSTORED = {"Cache-Control": "no-store"}


@pytest.mark.parametrize("named_by", ["who was given it", "who stored it", "the entry"])
def test_an_entry_that_is_purged_is_found_by_no_like_question(gateway: Gateway, named_by: str) -> None:
    project = serving(wait_until_warm(gateway))
    gateway.chat(project.key, "What is the capital of France?")
    stored = gateway.chat(project.key, QUESTION)
    given = gateway.chat(project.key, LIKE)
    assert outcome(given) == "HIT-SEMANTIC"
    told = gateway.explained(given)
    assert told["entry"] == told["semantic"]["entry"]
    named = {
        "who was given it": ("--request", given.header("X-Request-Id") or ""),
        "who stored it": ("--request", stored.header("X-Request-Id") or ""),
        "the entry": ("--entry", told["entry"]),
    }
    purge = ("cache", "purge", "--project", project.id, *named[named_by])
    assert gateway.installation.run_json(*purge)["invalidated"] == 1
    assert outcome(gateway.chat(project.key, QUESTION, headers=_UNSTORED)) == "MISS"
    assert outcome(gateway.chat(project.key, LIKE, headers=_UNSTORED)) == "MISS"
    assert outcome(gateway.chat(project.key, "what's the capital of France")) == "HIT-SEMANTIC"


def test_a_restart_loses_nothing(own: Gateway) -> None:
    project = serving(own)
    for number in range(50):  # more than are read at once
        own.chat(project.key, f"What is the capital of country number {number}?")
    own.chat(project.key, QUESTION)
    own.stop()
    again = wait_until_warm(own.installation.start_proxy())
    wait_for(lambda: outcome(again.chat(project.key, LIKE, headers=_UNSTORED)) == "HIT-SEMANTIC", "it to be found")


def test_one_key_cannot_displace_what_others_stored(installation: Installation, sim: Sim) -> None:
    limits = {"WATCHLLM_SEMANTIC_MAX_PER_KEY": "3"}
    installation.environment |= upstream_environment(sim.base_url) | limits
    installation.project("first")
    gateway = wait_until_warm(installation.start_proxy())
    project = serving(gateway)
    gateway.chat(project.key, QUESTION)
    flooding = installation.key(project.id)
    texts = [f"Who wrote book number {number} of the list?" for number in range(8)]
    for text in texts:
        gateway.chat(flooding, text)
    first = texts[0].replace("Who wrote", "who wrote").removesuffix("?")
    wait_for(lambda: outcome(gateway.chat(project.key, first, headers=_UNSTORED)) == "MISS", "its oldest to go")
    last = texts[-1].replace("Who wrote", "who wrote").removesuffix("?")
    assert outcome(gateway.chat(project.key, last)) == "HIT-SEMANTIC"
    assert outcome(gateway.chat(project.key, LIKE)) == "HIT-SEMANTIC"


def test_while_it_is_loaded_look_ups_are_misses_and_health_says_so(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url)
    project = installation.project("early", settings={"semantic": "on"})
    gateway = installation.start_proxy()
    states = []
    while not states or states[-1] != "ok":
        answer = gateway.chat(project.key, f"Early {len(states)}")
        assert outcome(answer) == "MISS"
        states.append(state_of(gateway))
        assert gateway.get("/health/ready").status == 200
    assert set(states) <= {None, "warming", "ok"}
    assert "warming" in states


def test_without_a_project_that_uses_it_nothing_is_loaded(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url)
    project = installation.project("plain", settings={"semantic": "off"})
    gateway = installation.start_proxy()
    wait_for(lambda: gateway.chat(project.key, "Plain?").header("X-WatchLLM-Cache") == "HIT", "a hit")
    assert state_of(gateway) is None
    assert not (installation.home / "vectors").exists()
    # A project that begins to use it has it loaded.
    serving(gateway)
    other = serving(gateway)
    gateway.chat(other.key, QUESTION)
    wait_until_warm(gateway)


def test_a_file_that_cannot_be_read_costs_hits_and_nothing_else(own: Gateway) -> None:
    project = serving(own)
    own.chat(project.key, QUESTION)
    own.stop()
    data = own.installation.home / "vectors" / "data.mdb"
    data.write_bytes(b"\xff" * data.stat().st_size)
    again = own.installation.start_proxy()
    wait_for(lambda: (state_of(again) or "").startswith("degraded: "), "the reason to be told", within=30)
    assert again.get("/health/ready").status == 200
    assert outcome(again.chat(project.key, LIKE)) == "MISS"
    assert outcome(again.chat(project.key, QUESTION)) == "HIT"


def test_a_lost_file_costs_hits_and_nothing_else(own: Gateway) -> None:
    project = serving(own)
    own.chat(project.key, QUESTION)
    own.stop()
    shutil.rmtree(own.installation.home / "vectors")
    again = wait_until_warm(own.installation.start_proxy())
    assert reasons(again, again.chat(project.key, LIKE)) == ("empty", None)
    assert outcome(again.chat(project.key, OTHERS[0])) == "HIT-SEMANTIC"


def test_lost_answers_are_not_served(own: Gateway) -> None:
    project = serving(own)
    own.chat(project.key, QUESTION)
    own.stop()
    shutil.rmtree(own.installation.home / "cache")
    again = wait_until_warm(own.installation.start_proxy())
    answer = again.chat(project.key, LIKE)
    assert outcome(answer) == "MISS"
    assert reasons(again, answer) == ("miss", "gone")
