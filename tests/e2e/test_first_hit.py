"""The product in one sentence: the second identical request is a hit."""

from tests.support.product import Gateway, Project, Sim


def test_the_second_identical_request_is_a_hit(gateway: Gateway, sim: Sim, project: Project) -> None:
    first = gateway.chat(project.key, "What is a cache?")
    second = gateway.chat(project.key, "What is a cache?")

    assert (first.status, first.header("X-WatchLLM-Cache")) == (200, "MISS")
    assert (second.status, second.header("X-WatchLLM-Cache")) == (200, "HIT")
    assert second.body == first.body
    assert sim.calls() == 1


def test_another_project_does_not_get_the_answer(gateway: Gateway, sim: Sim, project: Project) -> None:
    other = gateway.installation.project("other")

    gateway.chat(project.key, "What is ours?")
    answer = gateway.chat(other.key, "What is ours?")

    assert answer.header("X-WatchLLM-Cache") == "MISS"
    assert sim.calls() == 2
