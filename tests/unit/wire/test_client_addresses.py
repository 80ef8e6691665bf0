"""Where a request may go: the address check, and forward proxies."""

import asyncio
import base64
import socket
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.wire_peers import LoopFactory, Recorder, answer, answers, call, peer, pool_of, read_request, run
from watchllm.wire.address import is_public
from watchllm.wire.forward_proxy import ForwardProxies
from watchllm.wire.types import AddressRefused, ConnectFailed, Origin


@pytest.mark.parametrize("ip", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "169.253.0.1", "192.169.0.1"])
def test_public_ipv4_addresses_pass(ip: str) -> None:
    assert is_public(socket.AF_INET, (ip, 443))


@pytest.mark.parametrize(
    "ip",
    [
        *(
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
        ),
        *("169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
        *("192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
        *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
    ],
)
def test_other_ipv4_addresses_do_not_nor_do_their_ipv6_forms(ip: str) -> None:
    number = socket.inet_aton(ip)
    low = f"{number[0]:02x}{number[1]:02x}:{number[2]:02x}{number[3]:02x}"
    assert not is_public(socket.AF_INET, (ip, 443))
    for form in (
        f"::ffff:{ip}",
        f"::{ip}",
        f"::ffff:0:{low}",
        f"64:ff9b::{low}",
        f"64:ff9b:1::{low}",
        f"2002:{low}::1",
        f"2001:0:4136:e378:8000:63bf:{low}",
        f"2a00:1450:4001::5efe:{low}",
        f"2a00:1450:4001::200:5efe:{low}",
    ):
        assert not is_public(socket.AF_INET6, (form, 443, 0, 0)), form


@pytest.mark.parametrize("ip", ["2606:4700::1111", "2a00:1450:4001:80b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_ipv6_addresses_pass(ip: str) -> None:
    assert is_public(socket.AF_INET6, (ip, 443, 0, 0))


@pytest.mark.parametrize(
    "ip",
    [
        *(
            "::",
            "::1",
            "fe80::1",
            "fe80::1%1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
        ),
        *(
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
            "64:ff9b:1::808:808",
        ),
    ],
)
def test_other_ipv6_addresses_do_not(ip: str) -> None:
    assert not is_public(socket.AF_INET6, (ip, 443, 0, 0))


def test_a_scoped_address_or_another_family_is_never_public() -> None:
    assert not is_public(socket.AF_INET6, ("2606:4700::1111", 443, 0, 3))
    assert not is_public(socket.AF_UNIX, ("/run/socket",))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "0177.0.0.1", "2130706433", "127.1", "0", "[::1]", "[::ffff:7f00:1]"]
)
def test_a_projects_origin_never_reaches_this_host_however_it_is_spelt(loop_factory: LoopFactory, host: str) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"secret"))) as server, pool_of() as pool:
            heard = await call(pool, Origin("http", host, server.port, trusted=False))
            assert isinstance(heard.error, ConnectFailed)
            assert server.connections == 0
            if not isinstance(heard.error, AddressRefused):  # then only because the resolver knows no such name
                with pytest.raises(OSError, match=""):
                    socket.getaddrinfo(host.strip("[]"), server.port)

    run(loop_factory, main())


def test_the_operators_origins_and_leave_may_reach_this_host(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server:
            async with pool_of() as pool:
                assert (await call(pool, server.origin)).body == b"x"
                # What the operator's origin has opened is not the project's to use.
                refused = await call(pool, replace(server.origin, trusted=False))
                assert isinstance(refused.error, AddressRefused)
            async with pool_of(allow_private=True) as pool:
                assert (await call(pool, replace(server.origin, trusted=False))).body == b"x"

    run(loop_factory, main())


def fake_resolver(monkeypatch: pytest.MonkeyPatch, *answers_in_turn: list[str]) -> list[str]:
    """Names resolve to these addresses, one list per look-up. Returns the names looked up."""
    asked: list[str] = []
    turns = list(answers_in_turn)

    async def getaddrinfo(_: object, host: str, port: int, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in turns.pop(0)]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


def test_one_private_address_among_public_ones_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with pool_of() as pool:
            heard = await call(pool, Origin("https", "rebind.test", 443))
            assert isinstance(heard.error, AddressRefused)

    fake_resolver(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    run(asyncio.new_event_loop, main())


def test_the_address_checked_is_the_address_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to something else the second time gains nothing: there is no second time."""
    asked = fake_resolver(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    connected: list[object] = []

    async def sock_connect(_: object, __: object, address: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)

    async def main() -> None:
        async with pool_of() as pool:
            assert isinstance((await call(pool, Origin("http", "rebind.test", 80))).error, ConnectFailed)

    run(asyncio.new_event_loop, main())
    assert (asked, connected) == (["rebind.test"], [("8.8.8.8", 80)])


def test_a_dead_address_does_not_keep_a_call_from_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(loop: Any, connection: Any, address: Any) -> None:
        if address[0] == "127.0.0.9":
            await asyncio.Event().wait()
        elif address[0] == "127.0.0.8":
            raise OSError("unreachable")
        else:
            await genuine(loop, connection, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)

    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of() as pool:
            fake_resolver(monkeypatch, ["127.0.0.8", "127.0.0.9", "127.0.0.1"])
            assert (await call(pool, Origin("http", "many.test", server.port, True))).body == b"x"

    run(asyncio.new_event_loop, main())


def proxy_url(port: int, credentials: str = "") -> str:
    return f"http://{credentials}127.0.0.1:{port}"


def test_the_operators_http_goes_to_the_proxy_in_absolute_form(loop_factory: LoopFactory) -> None:
    async def main() -> list[bytes]:
        seen: list[bytes] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                seen.append(await read_request(reader))
                writer.write(answer(b"x"))

        async with peer(talk) as server:
            environment = {"HTTP_PROXY": proxy_url(server.port, "me:p%40ss@")}
            async with pool_of(proxy_env=environment) as pool:
                heard = await call(pool, Origin("http", "inside.test", 8000, trusted=True))
                assert heard.body == b"x"
        return seen

    credentials = base64.b64encode(b"me:p@ss")
    assert run(loop_factory, main()) == [
        b"POST http://inside.test:8000/v1/x HTTP/1.1\r\nHost: inside.test:8000\r\n"
        b"Proxy-Authorization: Basic " + credentials + b"\r\nX-Test: 1\r\nContent-Length: 2\r\n\r\n{}"
    ]


def test_a_projects_origin_is_tunnelled_to_by_its_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[bytes]:
        seen: list[bytes] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            seen.append(await read_request(reader))
            writer.write(answer(b"x"))

        async with peer(talk) as server, pool_of(proxy_env={"http_proxy": proxy_url(server.port)}) as pool:
            asked = fake_resolver(monkeypatch, ["8.8.8.8"], ["127.0.0.1"], ["10.0.0.1"])
            assert (await call(pool, Origin("http", "their.test", 80))).body == b"x"
            assert asked == ["their.test", "127.0.0.1"]
            refused = await call(pool, Origin("http", "other.test", 80))
            assert isinstance(refused.error, AddressRefused)
        return seen

    connect, request = run(asyncio.new_event_loop, main())
    assert connect == b"CONNECT 8.8.8.8:80 HTTP/1.1\r\nHost: 8.8.8.8:80\r\n\r\n"
    assert request.startswith(b"POST /v1/x HTTP/1.1\r\nHost: their.test\r\n")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "credentials"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
        (b"SSH-2.0-x\r\n\r\n", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK", "before the tunnel"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "too long"),
        (b"", "closed"),
    ],
)
def test_a_proxy_that_says_no_is_a_failed_connection(loop_factory: LoopFactory, reply: bytes, why: str) -> None:
    async def main() -> Recorder:
        async with (
            peer(answers(reply, then_close=True)) as server,
            pool_of(proxy_env={"HTTPS_PROXY": proxy_url(server.port)}) as pool,
        ):
            return await call(pool, Origin("https", "api.test", 443, trusted=True))

    error = run(loop_factory, main()).error
    assert isinstance(error, ConnectFailed)
    assert why in str(error)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "api.test", 443, False),
        ("*", "api.test", 443, True),
        ("api.test", "api.test", 443, True),
        ("api.test", "API.test.", 443, True),
        ("api.test", "eu.api.test", 443, True),
        (".api.test", "eu.api.test", 443, True),
        ("*.api.test", "eu.api.test", 443, True),
        ("api.test", "notapi.test", 443, False),
        ("a.test, api.test", "api.test", 443, True),
        ("api.test:8443", "api.test", 8443, True),
        ("api.test:8443", "api.test", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "api.test", 443, False),
        ("::1", "[::1]", 443, True),
        ("[::1]:8443", "::1", 8443, True),
        ("fd00::/8", "fd12::1", 443, True),
        (",.", "api.test", 443, False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, direct: bool) -> None:
    proxies = ForwardProxies({"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": no_proxy})
    assert (proxies.of(Origin("https", host, port)) is None) is direct


def test_which_proxy_applies() -> None:
    origin = Origin("https", "api.test", 443)
    both = ForwardProxies({"HTTPS_PROXY": "http://upper.test", "https_proxy": "http://lower.test:1"})
    assert both.of(origin) == ("lower.test", 1, b"")
    assert both.of(replace(origin, scheme="http")) is None
    assert ForwardProxies({"ALL_PROXY": "http://all.test"}).of(origin) == ("all.test", 80, b"")
    assert ForwardProxies({}).of(origin) is None


@pytest.mark.parametrize("url", ["socks5://p.test:1080", "https://me:secret@p.test", "http://", "http://p.test:x"])
def test_a_proxy_that_cannot_be_used_is_refused_at_once_and_keeps_its_password(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        ForwardProxies({"HTTPS_PROXY": url})
    assert "secret" not in str(refused.value)
