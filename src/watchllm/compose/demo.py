"""`watchllm demo`: everything that `up` brings up, a simulated provider that takes its time, and traffic."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import uvloop

from watchllm.compose.children import in_child
from watchllm.compose.supervisor import Role
from watchllm.compose.up import run_up
from watchllm.configuration import Configuration, InstanceProvider

PROJECT = "demo"
_LATENCY_SECONDS = 0.12
_CHUNK_SECONDS = 0.008
_REQUESTS_A_SECOND = 12.0


def run_demo(configuration: Configuration, *, console: bool) -> int:
    """Run until SIGTERM or SIGINT; the exit code. All it asks is answered by the simulated provider, at price 0."""
    simulator = InstanceProvider(None, f"http://127.0.0.1:{configuration.sim_port}/v1")
    providers = configuration.instance_providers | {"sim": simulator}
    demo = msgspec.structs.replace(configuration, instance_providers=providers)

    def roles() -> list[Role]:
        key = in_child(lambda: _demo_key(configuration)).decode()
        return [
            Role("sim", lambda given: _run(_simulate(given.configuration.sim_port, given.parent, given.ready))),
            Role("traffic", lambda given: _run(_traffic(given.configuration, key, given.parent, given.ready))),
        ]

    return run_up(demo, console=console, extra=roles)


def _demo_key(configuration: Configuration) -> bytes:
    """A new key of the demo's own project; earlier ones, which nobody knows any more, are revoked."""
    from watchllm.compose.control import open_control_plane

    with open_control_plane(configuration, actor="demo") as plane:
        project = next((known for known in plane.projects() if known.name == PROJECT), None)
        if project is None:
            project = plane.create_project(PROJECT)
        for key in plane.keys(project.id):
            if key.revoked_ms is None:
                plane.revoke_key(key.id)
        return plane.create_key(project.id, name="demo traffic").secret.encode()


def _run(coroutine: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def _simulate(port: int, parent: int, ready: Callable[[int], None]) -> int:
    from watchllm.sim.app import SimApp, SimOptions
    from watchllm.sim.knobs import Knobs
    from watchllm.wire.server import serve

    options = SimOptions(knobs=Knobs(latency=_LATENCY_SECONDS, chunk_time=_CHUNK_SECONDS), record=0)
    server = await serve(SimApp(options), port=port)
    ready(server.port)
    await _told_to_stop(parent)
    await server.drain(0.5)
    return 0


async def _traffic(configuration: Configuration, key: str, parent: int, ready: Callable[[int], None]) -> int:
    from watchllm.sim.traffic import run_traffic

    stop = asyncio.Event()
    ready(0)
    scheme = "https" if configuration.tls_cert else "http"
    base_url = f"{scheme}://127.0.0.1:{configuration.proxy_port}/v1"
    sending = asyncio.ensure_future(run_traffic(base_url, key, rate=_REQUESTS_A_SECOND, stop=stop))
    await _told_to_stop(parent)
    stop.set()
    await sending
    return 0


async def _told_to_stop(parent: int) -> None:
    """Until SIGTERM or SIGINT, or until the supervisor is gone."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_reader(parent, _parent_left)
    await told.wait()
    loop.remove_reader(parent)


def _parent_left() -> None:
    os._exit(0)
