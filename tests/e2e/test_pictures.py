"""Images by URL on their way to a server of the operator's own network: it is never sent to its neighbours."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.product import UPSTREAM_KEY, Gateway, Installation, Project, Sim, upstream_environment

PRIVATE = ("http://169.254.169.254/latest/meta-data", "http://127.1:8787/v1/models", "http://2130706433/")
PUBLIC = "https://example.com/a.png"
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def gateway(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    anthropic = {"ANTHROPIC_BASE_URL": shared_sim.base_url, "ANTHROPIC_API_KEY": UPSTREAM_KEY}
    environment = upstream_environment(shared_sim.base_url) | anthropic
    installation = Installation(tmp_path_factory.mktemp("pictures") / "home", environment)
    installation.project("first")
    proxy = installation.start_proxy()
    yield proxy
    proxy.stop()


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


_ASK = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (
            "/v1/responses",
            {"input": "Why?", "tools": [{"type": "mcp", "server_label": "x", "server_url": PRIVATE[0]}]},
            b"tools[0].server_url",
        ),
        (
            "/v1/messages",
            {
                "model": "claude-sonnet-4-5",
                "max_tokens": 9,
                "messages": _ASK,
                "mcp_servers": [{"type": "url", "name": "x", "url": PRIVATE[0]}],
            },
            b"mcp_servers[0].url",
        ),
        (
            "/v1/messages/count_tokens",
            {
                "model": "claude-sonnet-4-5",
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": PRIVATE[0]}}]}
                ],
            },
            b"messages[0].content[0].source.url",
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": "http://169.254.169.254\\@8.8.8.8/x"}],
                    }
                ]
            },
            b"messages[0].content[0].image_url",
        ),
    ],
)
def test_nor_by_way_of_tools_or_counting_or_a_host_that_reads_in_two_ways(
    gateway: Gateway, project: Project, sim: Sim, path: str, fields: dict[str, Any], param: bytes
) -> None:
    before = sim.calls()
    answer = gateway.post(path, project.key, {"model": "gpt-4o"} | fields, headers={"anthropic-version": "2023-06-01"})
    assert answer.status == 400, answer
    assert param in answer.body
    # A server of tools cannot be sent along.
    assert (b"base64" in answer.body) is (b"tools" not in param and b"mcp_servers" not in param)
    assert sim.calls() == before


def test_a_tool_that_takes_a_url_names_none(gateway: Gateway, project: Project) -> None:
    schema = {"type": "object", "properties": {"url": {"type": "string", "examples": [{"url": PRIVATE[0]}]}}}
    tool = {"type": "function", "function": {"name": "fetch", "parameters": schema}}
    answer = gateway.chat(project.key, "Why?", tools=[tool])
    assert answer.status == 200, answer
