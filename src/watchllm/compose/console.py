"""Builds and runs a console process: the control plane, the publisher's loop and the web application."""

import asyncio
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import uvicorn
import uvloop

from watchllm.cache.entry import CacheStats
from watchllm.compose.cache_admin import open_cache
from watchllm.compose.control import keyring_of, open_control_plane
from watchllm.compose.installation import SNAPSHOT_FOLDER
from watchllm.configuration import Configuration
from watchllm.console.app import create_app
from watchllm.console.proxies import ProxyStates
from watchllm.console.services import Console
from watchllm.console.sessions import Sessions
from watchllm.console.throttle import FailureThrottle
from watchllm.domain import ids
from watchllm.stores.lmdb.environment import StoreBroken
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.sockets import socket_folder
from watchllm.wire.listening import bind_for_workers

_DRAIN_SECONDS = 5
_ORPHAN_SECONDS = 0.8
_MOST_CONNECTIONS = 500
_IDLE_SECONDS = 30


def run_console(
    configuration: Configuration,
    *,
    parent: int | None = None,
    on_ready: Callable[[int], None] | None = None,
    sockets: Sequence[socket.socket] = (),
) -> int:
    """Run until SIGTERM or SIGINT, then finish the answers under way; the exit code.

    `parent` is the reading end of a pipe that the supervisor holds open: within a second of its end this process ends
    too. `on_ready` is called with the port once requests are taken. `sockets` are listened on instead of the configured
    address. Raises OSError where the address cannot be had, else what `open_control_plane` raises.
    """
    ids.reseed()
    orphan = _OrphanWatch(parent)
    with (
        orphan,
        _listening(configuration, sockets) as listeners,
        _console(configuration) as console,
    ):
        server = _Server(configuration, console, listeners, on_ready)
        orphan.on_end = server.stop_at_once
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.run())
    return 0


class _OrphanWatch:
    """Ends the process soon after the supervisor, from a thread: even while it starts, stops or is stuck."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._finished = threading.Event()
        self.on_end: Callable[[], None] | None = None

    def __enter__(self) -> None:
        if self._parent is not None:
            threading.Thread(target=self._watch, args=(self._parent,), name="parent", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._finished.set()

    def _watch(self, parent: int) -> None:
        while not _has_ended(parent):
            select.select([parent], [], [])
        if self.on_end is not None:
            self.on_end()
        if not self._finished.wait(_ORPHAN_SECONDS):
            # Both stores survive a kill; a console without its supervisor must not hold the port.
            os._exit(1)


def _has_ended(pipe: int) -> bool:
    try:
        return not os.read(pipe, 1)
    except BlockingIOError:
        # The other children read the same pipe, and an event loop among them has made it non-blocking for all.
        return False


class _Server(uvicorn.Server):
    """uvicorn with signal handling of our own: its own would end the process by the signal instead of with 0."""

    def __init__(
        self,
        configuration: Configuration,
        console: Console,
        listeners: Sequence[socket.socket],
        on_ready: Callable[[int], None] | None,
    ) -> None:
        super().__init__(_uvicorn_configuration(configuration, console))
        self._listeners = list(listeners)
        self._on_ready = on_ready

    async def run(self) -> None:  # type: ignore[override]  # uvicorn's own starts a loop; this runs in one.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        await self._serve(self._listeners)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(self._listeners[0].getsockname()[1])

    def stop_at_once(self) -> None:
        """Stop without waiting for the answers under way; from any thread."""
        self.force_exit = True
        self.should_exit = True

    def _stop(self) -> None:
        self.should_exit = True


def _uvicorn_configuration(configuration: Configuration, console: Console) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(console),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        # `X-Forwarded-For` and `-Proto` count from the proxies named by the operator only.
        proxy_headers=bool(configuration.trusted_proxies),
        forwarded_allow_ips=list(configuration.trusted_proxies),
        ssl_certfile=str(configuration.tls_cert) if configuration.tls_cert else None,
        ssl_keyfile=str(configuration.tls_key) if configuration.tls_key else None,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


@contextmanager
def _console(configuration: Configuration) -> Iterator[Console]:
    """The services of the pages, with the publisher at work beside them."""
    with ExitStack() as stack:
        plane = stack.enter_context(open_control_plane(configuration, actor="console"))
        snapshot = LmdbSnapshotReader(configuration.home / SNAPSHOT_FOLDER)
        stack.callback(snapshot.close)
        stop = threading.Event()
        publisher = threading.Thread(target=plane.publisher.run, args=(stop,), name="publisher", daemon=True)
        publisher.start()
        stack.callback(publisher.join)
        stack.callback(stop.set)
        keyring = keyring_of(configuration)
        secure = bool(configuration.tls_cert) or (configuration.public_url or "").startswith("https:")
        yield Console(
            plane=plane,
            configuration=configuration,
            sessions=Sessions(keyring.derive("console-session"), time.time),
            throttle=FailureThrottle(time.monotonic),
            token_throttle=FailureThrottle(time.monotonic),
            proxies=ProxyStates(
                lambda: socket_folder(configuration.home),
                configuration.admin_addr,
                keyring.derive("admin-token").hex(),
            ),
            cache_totals=_cache_totals(configuration, stack),
            published_version=snapshot.version,
            now=time.time,
            secure=secure,
        )


def _cache_totals(configuration: Configuration, stack: ExitStack) -> Callable[[], CacheStats | str]:
    try:
        return stack.enter_context(open_cache(configuration)).totals
    except StoreBroken as error:
        # Keys, projects and proxies are there to be seen all the same.
        reason = str(error)
        return lambda: reason


@contextmanager
def _listening(configuration: Configuration, given: Sequence[socket.socket]) -> Iterator[Sequence[socket.socket]]:
    """Those given, else the configured address's. Raises OSError."""
    sockets = given or bind_for_workers(configuration.host, configuration.console_port, 1)[0]
    try:
        yield sockets
    finally:
        for listener in sockets:
            listener.close()
