"""Limits in a Redis whose locale puts signs before digits, as most languages' do: strings of Lua are compared by it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.servers import require_server
from tests.support.shared_limits import ORGANIZATION, USD, Proxy, subject, told, with_proxies
from watchllm.domain.limits import Limits
from watchllm.stores.redis.limits_layout import account_of

LIMITED = subject(Limits(budget_usd_total=5.0))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    for name, value in _locale(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LC_ALL", raising=False)
    server = RedisServer(tmp_path / "redis")
    assert server.command("EVAL", "return '~' > '0' and 1 or 0", 0) == b":0\r\n"
    yield server
    server.stop()


def _locale(directory: Path) -> dict[str, str]:
    """The environment with a locale that is made there: which ones a machine has cannot be known."""
    signs = [ord(sign) for sign in "~}."]
    order = signs + [code for code in range(128) if code not in signs]
    names = [f"<U{code:04X}> /x{code:02x} character" for code in range(128)]
    heads = ("<code_set_name> ASCII", "<comment_char> %", "<escape_char> /", "CHARMAP")
    (directory / "characters").write_text("\n".join([*heads, *names, "END CHARMAP", ""]))
    rules = ["LC_COLLATE", "order_start forward", *(f"<U{code:04X}>" for code in order), "order_end", "END LC_COLLATE"]
    (directory / "rules").write_text("\n".join(["comment_char %", "escape_char /", *rules, ""]))
    program = require_server("localedef")
    # It warns of all that such a locale does not say.
    subprocess.run(
        [program, "--force", "--no-archive", "-f", "characters", "-i", "rules", "./signs_first"],
        cwd=directory,
        capture_output=True,
        check=False,
    )
    return {"LOCPATH": str(directory), "LC_COLLATE": "signs_first"}


def _pending(server: RedisServer) -> bytes:
    """What the account has of what the database has not counted."""
    return server.command("HGET", account_of(ORGANIZATION), "P|key_1|t")


def test_what_an_ended_proxy_told_does_not_count_beside_what_the_database_has_counted(server: RedisServer) -> None:
    async def use(one: Proxy) -> None:
        told(server.url, one)
        one.settle(await one.enter(LIMITED), nanos=2 * USD)
        await one.tell()
        assert b"2000000000 1" in _pending(server)
        told(server.url, one, spent={"key_1": (1, 2 * USD)}, finished=True)
        assert _pending(server) == b"$-1\r\n"

    with_proxies(server.url, 1, use)


def test_what_a_proxy_tells_anew_takes_the_place_of_what_it_told(server: RedisServer) -> None:
    async def use(one: Proxy) -> None:
        told(server.url, one)
        one.settle(await one.enter(LIMITED), nanos=2 * USD)
        await one.tell()
        for account in one.limiter._accounts.values():
            account.joined = False
        one.settle(await one.enter(LIMITED))
        await one.tell()
        assert b"2000000000 2" in _pending(server)

    with_proxies(server.url, 1, use)


def test_what_cannot_be_written_down_counts(server: RedisServer) -> None:
    async def use(one: Proxy) -> None:
        told(server.url, one)
        admission = await one.enter(LIMITED)
        one.limiter._end = lambda: None
        one.settle(admission, nanos=2 * USD)
        await one.tell()
        assert b"2000000000 1" in _pending(server)

    with_proxies(server.url, 1, use)
