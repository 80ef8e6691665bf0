"""Where a project's base URL may lead: to public addresses, judged where the connection is really made.

Images by URL are under the same rules: tests/unit/proxy/test_image_fetch.py.
"""

import asyncio
from collections.abc import Coroutine

import pytest

from tests.support.inside import inside
from tests.support.internet import Internet
from tests.support.product import Gateway, Installation, Project, Sim
from tests.support.raw_http import RawResponse
from tests.support.scripted_upstream import scripted_upstream
from tests.support.wire_peers import answer

SECRET = "sk-of-the-project"

# All of them are 127.0.0.1, where the simulated provider listens.
SPELLINGS = ("127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "0", "0.0.0.0", "localhost",
             "[::ffff:127.0.0.1]", "[::ffff:7f00:1]")  # fmt: skip
# `localhost.` is it to some resolvers only.
ELSEWHERE = ("localhost.", "[::1]", "[::]", "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[fd12::1]", "[fe80::1]",
             "[fe80::1%lo]", "169.254.169.254", "168.63.129.16", "100.64.0.1", "10.0.0.1", "172.31.255.255",
             "192.168.0.1")  # fmt: skip

ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"From outside."}}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)


def project_at(installation: Installation, base_url: str) -> Project:
    """A project whose OpenAI is at `base_url`."""
    project = installation.project("addresses")
    with installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=base_url)
    return project


def refused(answer: RawResponse) -> bool:
    return (answer.status, answer.json()["error"]["code"]) == (502, "provider_unreachable")


@pytest.mark.parametrize("host", [*SPELLINGS, *ELSEWHERE])
def test_a_base_url_leads_to_no_private_address_however_it_is_spelt(gateway: Gateway, sim: Sim, host: str) -> None:
    project = project_at(gateway.installation, f"http://{host}:{sim.port}/v1")
    assert refused(gateway.chat(project.key, "Inside?"))
    assert refused(gateway.post("/v1/moderations", project.key, {"input": "Inside?"}))
    assert gateway.get("/v1/models", project.key).status == 200
    assert sim.calls() == 0


@pytest.mark.parametrize("host", SPELLINGS)
def test_those_spellings_do_lead_there_with_the_operators_leave(open_gateway: Gateway, sim: Sim, host: str) -> None:
    project = project_at(open_gateway.installation, f"http://{host}:{sim.port}/v1")
    assert open_gateway.chat(project.key, "Inside?").status == 200
    assert sim.calls() == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_provider_cannot_redirect_the_proxy_nor_the_client(open_gateway: Gateway, sim: Sim, status: int) -> None:
    location = f"{sim.base_url}/chat/completions"
    with scripted_upstream(lambda call: call.reply(status, b"{}", location=location)) as upstream:
        project = project_at(open_gateway.installation, upstream.base_url)
        answers = [
            open_gateway.chat(project.key, "Elsewhere?"),
            open_gateway.post("/v1/moderations", project.key, {"input": "Elsewhere?"}),
        ]
        assert len(upstream.calls) == 2
    assert sim.calls() == 0
    for told in answers:
        assert told.status != 200
        assert told.header("location") is None


def on_plain_loop(test: Coroutine[None, None, None]) -> None:
    """Run it on asyncio's own loop, whose resolver and sockets an `Internet` can replace."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(bounded())


def outside(internet: Internet) -> list[str]:
    """The addresses connected to, but for the test's own connections to the proxy."""
    return [ip for ip in internet.connected if ip != "127.0.0.1"]


def test_the_address_that_was_judged_is_the_one_connected_to(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that becomes a private address between the check and the connection, and then stays one."""
    project = project_at(installation, "http://provider.test/v1")
    internet = Internet(monkeypatch, loopback=True)
    said = answer(ANSWER, b"Content-Type: application/json", b"Connection: close")

    async def test() -> None:
        async with (
            internet.open(lambda _path: said, host="provider.test") as provider,
            inside(installation, project) as pair,
        ):
            internet.name("provider.test", ["8.8.8.8"], ["127.0.0.1"])
            first = await pair.ask("Outside?")
            assert (first.status, first.json()["choices"][0]["message"]["content"]) == (200, "From outside.")
            assert internet.asked.count("provider.test") == 1
            assert refused(await pair.ask("And now?"))
            assert internet.asked.count("provider.test") > 1
            assert provider.connections == 1
            assert pair.calls == 0

    on_plain_loop(test())
    assert outside(internet) == ["8.8.8.8"]


@pytest.mark.parametrize(
    "addresses",
    [
        ["8.8.8.8", "127.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "::ffff:127.0.0.1"],
        ["2606:4700::1111", "fd00::1"],
    ],
)
def test_a_name_with_public_and_private_addresses_is_refused_whole(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    project = project_at(installation, "http://provider.test/v1")
    internet = Internet(monkeypatch, loopback=True)

    async def test() -> None:
        async with (
            internet.open(lambda _path: answer(ANSWER), host="provider.test") as provider,
            inside(installation, project) as pair,
        ):
            internet.name("provider.test", addresses)
            assert refused(await pair.ask("Outside?"))
            assert (provider.connections, pair.calls) == (0, 0)

    on_plain_loop(test())
    assert outside(internet) == []
