"""Images by URL on their way to a server of the operator's own network: it is never sent to its neighbours."""

from typing import Any

import pytest

from tests.support.product import Gateway, Project, Sim

PRIVATE = ("http://169.254.169.254/latest/meta-data", "http://127.1:8787/v1/models", "http://2130706433/")
PUBLIC = "https://example.com/a.png"
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def in_chat(url: str) -> tuple[str, dict[str, Any]]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return "/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]}


def in_messages(url: str) -> tuple[str, dict[str, Any]]:
    part = {"type": "image", "source": {"type": "url", "url": url}}
    ask = [{"role": "user", "content": [part]}]
    return "/v1/messages", {"model": "gpt-4o", "max_tokens": 9, "messages": ask}


def in_responses(url: str) -> tuple[str, dict[str, Any]]:
    part = {"type": "input_image", "image_url": url}
    return "/v1/responses", {"model": "gpt-4o", "input": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("url", PRIVATE)
@pytest.mark.parametrize("ask", [in_chat, in_messages, in_responses])
def test_a_private_upstream_is_not_sent_to_its_neighbours(
    gateway: Gateway, project: Project, sim: Sim, ask: Any, url: str
) -> None:
    path, body = ask(url)
    before = sim.calls()
    answer = gateway.post(path, project.key, body, headers={"anthropic-version": "2023-06-01"})
    assert answer.status == 400, answer
    assert b"private address" in answer.body
    assert sim.calls() == before


@pytest.mark.parametrize("ask", [in_chat, in_responses])
def test_what_leads_elsewhere_goes_up_as_it_is(gateway: Gateway, project: Project, sim: Sim, ask: Any) -> None:
    path, body = ask(PUBLIC)
    answer = gateway.post(path, project.key, body)
    assert answer.status == 200, answer
    assert PUBLIC in str(sim.requests()[-1]["body"])


@pytest.mark.parametrize("ask", [in_chat, in_responses])
def test_an_image_that_comes_along_goes_up_as_it_is(gateway: Gateway, project: Project, sim: Sim, ask: Any) -> None:
    path, body = ask(PIXEL)
    answer = gateway.post(path, project.key, body)
    assert answer.status == 200, answer
    assert PIXEL in str(sim.requests()[-1]["body"])


def test_a_url_in_a_text_is_no_image(gateway: Gateway, project: Project) -> None:
    answer = gateway.chat(project.key, f'What is in {PRIVATE[0]}? It is said to be an "image".')
    assert answer.status == 200, answer
