"""What happens to a proxy between two calls of one request: it is killed, or its secret is rotated."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.product import Installation
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.routing import LLAMA, MINI, Routed, Waits, by_key, fails, routed, says, text_of
from tests.support.scripted_upstream import Call


@pytest.fixture
def project(installation: Installation) -> Iterator[Routed]:
    installation.environment["WATCHLLM_ALLOW_PRIVATE_URLS"] = "true"
    installation.project("first")
    with routed(installation.start_proxy()) as project:
        yield project


@pytest.mark.parametrize("in_back_off", [True, False])
def test_a_killed_proxy_leaves_one_aborted_row_with_all_of_its_calls(project: Routed, in_back_off: bool) -> None:
    called = threading.Event()

    def last(call: Call) -> None:
        if in_back_off:
            fails(503, retry_after="15")(call)
        called.set()
        if not in_back_off:
            Waits()(call)

    project.route("fast", MINI, fallbacks=() if in_back_off else (LLAMA,), retries=int(in_back_off))
    project.openai.script = last if in_back_off else fails(429)
    project.groq.script = last
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hello?"}]}
    with RawConnection(project.gateway.port) as connection:
        connection.send(request_bytes("/v1/chat/completions", key=project.project.key, body=body))
        assert called.wait(10)
        project.gateway.process.kill()
        assert connection.is_closed_by_peer()
    [row] = project.rows(1)
    assert (row["status"], row["ended"], row["error"]) == (0, "aborted", "aborted")
    assert [one["provider"] for one in row["attempts"]] == (["openai"] if in_back_off else ["openai", "groq"])
    assert all(one["key_id"].startswith("pvk_") and one["price"] for one in row["attempts"])
    assert row["cost_nanos"] == sum(one["cost"] for one in row["attempts"]) > 0


def test_keys_are_followed_as_before_when_the_secret_was_rotated(project: Routed) -> None:
    project.add_key("openai", "two", priority=1)
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = by_key(one=fails(401), two=says("second"))
    assert text_of(project.ask("Before?")) == "second"
    assert project.installation.run_json("secret", "rotate") == {"provider_keys": 3}
    assert text_of(project.ask("After?")) == "second"
    project.openai.script = fails(429)
    assert text_of(project.ask("And then?")) == "groq"
    assert [len(row["attempts"]) for row in project.rows(3)] == [2, 2, 3]
