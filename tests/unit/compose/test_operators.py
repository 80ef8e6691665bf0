"""The operators' listener: there before it answers, private, and its want told where it cannot be had."""

import asyncio
import os
from pathlib import Path

import uvloop

from watchllm.compose.operators import OperatorsListener
from watchllm.configuration import load
from watchllm.domain.errors import GatewayError
from watchllm.stores.sockets import socket_folder
from watchllm.wire.server import BodyMode, Exchange, Server, ServerLimits


class Answers:
    """Says where one is to everything."""

    def body_mode(self, exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        exchange.respond(200, b"", b"here")

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        return b"", error.code.encode()


def server() -> Server:
    return Server(Answers(), ServerLimits(), asyncio.get_running_loop())


def listener_in(home: Path) -> tuple[OperatorsListener, Path]:
    """A listener of this process, and where its socket will be."""
    home.mkdir(mode=0o700)
    return OperatorsListener(load({"home": str(home)}, {})), socket_folder(home) / f"proxy-{os.getpid()}.sock"


def test_who_comes_before_it_answers_waits_and_is_answered(tmp_path: Path) -> None:
    listener, path = listener_in(tmp_path / "home")

    async def test() -> None:
        listener.bind()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await listener.serve(server)
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert path.stat().st_mode & 0o777 == 0o600
        await listener.close()

    uvloop.run(asyncio.wait_for(test(), 20))
    assert listener.problem is None
    assert not path.exists()


def test_a_socket_that_was_left_is_replaced_and_one_that_never_answered_is_removed(tmp_path: Path) -> None:
    listener, path = listener_in(tmp_path / "home")
    path.touch()
    listener.bind()
    assert path.is_socket()
    uvloop.run(listener.close())
    assert not path.exists()


def test_a_folder_that_others_can_write_to_is_a_problem_and_no_server_is_made(tmp_path: Path) -> None:
    listener, path = listener_in(tmp_path / "home")
    path.parent.chmod(0o777)
    listener.bind()
    assert listener.problem is not None
    assert listener.problem.startswith("degraded: ")
    assert "does not belong to this user alone" in listener.problem

    def unwanted() -> Server:
        raise AssertionError("there is nothing to listen on")

    async def test() -> None:
        await listener.serve(unwanted)
        await listener.close()

    uvloop.run(test())
    assert not path.exists()
