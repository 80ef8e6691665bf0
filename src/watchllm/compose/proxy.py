"""Builds and runs a proxy process. Import-light: its cold start is a promise."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import uvloop

from watchllm.compose.limiting import open_limiting
from watchllm.compose.operators import OperatorsListener
from watchllm.compose.proxy_settings import instance_credentials, server_limits, tls_context
from watchllm.configuration import Configuration
from watchllm.domain import ids
from watchllm.domain.errors import ProviderFailed, Unavailable
from watchllm.domain.sealing import Keyring
from watchllm.domain.settings import OFF
from watchllm.journal.journal import Journal
from watchllm.proxy.app import ProxyApp
from watchllm.proxy.history import History
from watchllm.proxy.semantic.warming import Semantic
from watchllm.proxy.services import Outbound, Services
from watchllm.proxy.settle import Counters, Settlement
from watchllm.proxy.tenants import Tenants
from watchllm.stores import home
from watchllm.stores.lmdb.cache import LmdbExactStore
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.wire.server import Server, ServerLimits
from watchllm.wire.types import Origin, Timeouts

if TYPE_CHECKING:
    from watchllm.cache.entry import Answers, InvalidationFilter
    from watchllm.cache.semantic.engine import Engine
    from watchllm.compose.shared import Shared
    from watchllm.proxy.slots import Slots

RETIRE = signal.SIGUSR2
"""Asks a proxy to leave new connections to its successor and to serve those that it has to their end."""

_ORPHAN_DRAIN_SECONDS = 0.3
# A client that has sent nothing for so long is hardly sending at the very moment in which its connection is closed.
_IDLE_SECONDS = 3.0
# Longer than an orphan takes to end, so that `watchllm up` can be started again at once after it was killed.
_HANDOVER_SECONDS = 2.0
# What the first cached answer does not need is loaded this long after requests are taken.
_WARM_UP_SECONDS = 0.1
# Connections to one provider for what the gateway asks on its own account, beside the calls of its clients.
_OWN_CALLS = 64
# To find out whether any uses the semantic cache; where none of these does, it is loaded when the first one asks.
_PROJECTS_LOOKED_AT = 256


def run_proxy(
    configuration: Configuration,
    *,
    parent: int | None = None,
    on_ready: Callable[[int], None] | None = None,
    sockets: Sequence[socket.socket] = (),
) -> int:
    """Run until SIGTERM or SIGINT, then drain, refusing what comes; or until SIGUSR2, then retire: serve the
    connections that there are and leave the others to a successor. The exit code.

    `parent` is the reading end of a pipe that the supervisor holds open: at its end this process ends too. `on_ready`
    is called with the port once requests are taken. `sockets` are listened on instead of the configured address.

    Without Redis two processes on one home would each keep limits and live state of their own: the second is refused
    with 1, on stderr, unless the first is ending.
    """
    ids.reseed()
    shared = configuration.redis_url is not None
    try:
        claim = home.claim_for_proxy(configuration.directory, wait_seconds=_HANDOVER_SECONDS, shared=shared)
    except home.HomeInUse as error:
        # Here, not by the caller: the supervisor's child has nobody above it who would know this error.
        sys.stderr.write(f"watchllm proxy: {error}\n")
        return 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(configuration, parent, on_ready, sockets))
    finally:
        os.close(claim)


async def _serve(
    configuration: Configuration,
    parent: int | None,
    on_ready: Callable[[int], None] | None,
    sockets: Sequence[socket.socket],
) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[tuple[float, bool]] = loop.create_future()

    def ask_to_stop(seconds: float, retire: bool) -> None:
        if stop.done():
            proxy.hurry(seconds)
        else:
            stop.set_result((seconds, retire))

    def be_orphaned(pipe: int) -> None:
        loop.remove_reader(pipe)
        ask_to_stop(_ORPHAN_DRAIN_SECONDS, False)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, configuration.drain_seconds, False)
    loop.add_signal_handler(RETIRE, ask_to_stop, configuration.drain_seconds, True)
    if parent is not None:
        loop.add_reader(parent, be_orphaned, parent)

    proxy = ProxyProcess(configuration, loop)
    try:
        port = await proxy.listen(sockets)
        # What is loaded now stays: the collector need not look at it again and again.
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        gc.enable()
        if on_ready is not None:
            on_ready(port)
        seconds, retire = await stop
        await proxy.drain(seconds, retire=retire)
        if parent is not None:
            loop.remove_reader(parent)
    finally:
        await proxy.close()
    return 0


class ProxyProcess:
    """One proxy's parts, put together; opened after a fork, closed in order."""

    def __init__(self, configuration: Configuration, loop: asyncio.AbstractEventLoop) -> None:
        self._configuration = configuration
        self._loop = loop
        self._simulator: Server | None = None
        self._operators = OperatorsListener(configuration)
        self._outbound: Outbound | None = None
        self._starting: asyncio.Task[Server] | None = None
        self._purging: set[asyncio.Task[None]] = set()
        self._warming: asyncio.TimerHandle | None = None
        folder = configuration.directory
        home.prepare(folder)
        self._shared = None if configuration.redis_url is None else _open_shared(configuration, loop)
        self._snapshot = LmdbSnapshotReader(os.path.join(folder, "snapshot"))
        # This host's own cache, where it is not shared.
        self._cache = None if self._shared is not None else _open_cache(configuration)
        self._keyring = Keyring(
            lambda: home.master_secrets(folder, configuration.secret_key, configuration.secret_key_previous)
        )
        self._keyring.in_force(self._snapshot.secret("canary"), "the snapshot")
        self._journal = Journal.open(
            os.path.join(folder, "journal"),
            max_bytes=configuration.journal_max_bytes,
            policy=configuration.journal_full,
            region=configuration.region,
        )
        counters = Counters()
        tenants = Tenants(self._snapshot, instance_credentials(configuration))
        settlement = Settlement(counters, self._journal, tenants.price)
        settlement.limiting = limiting = open_limiting(configuration, self._journal, self._snapshot, self._shared, loop)
        self._services = Services(
            loop=loop,
            tenants=tenants,
            cache=_answers(self._cache, self._shared),
            settlement=settlement,
            counters=counters,
            limits=server_limits(configuration),
            timeouts=Timeouts(
                configuration.upstream_connect_timeout,
                configuration.upstream_first_byte_timeout,
                configuration.upstream_idle_timeout,
                configuration.upstream_total_timeout,
            ),
            history=History(loop.call_later),
            flights={} if self._shared is None else self._shared.flights,
            leases=None if self._shared is None else self._shared.leases,
            limiting=limiting,
            trusted_proxies=configuration.trusted_proxies,
            store_counters=dict if self._shared is None else self._shared.counters,
            semantic=Semantic(loop, self._open_engine, self._uses_semantic),
            make_outbound=self._make_outbound,
            make_slots=self._make_slots,
            dependencies=self._dependencies,
            recorder_lag=self._recorder_lag,
        )
        if self._shared is not None:
            self._shared.on_invalidation = self._forget_prompts
        self._app = ProxyApp(self._services)
        self._server = Server(self._app, self._services.limits, loop, self._swept)

    async def listen(self, sockets: Sequence[socket.socket]) -> int:
        """Take requests, from `sockets` where there are any; the port. Raises OSError where the address cannot be
        had."""
        configuration = self._configuration
        tls = tls_context(configuration)
        if self._shared is not None:
            await self._shared.reached()
        self._operators.bind()
        if sockets:
            await self._server.listen_on(sockets, tls=tls)
        else:
            await self._server.listen_tcp(configuration.host, configuration.proxy_port, tls=tls)
        self._warming = self._loop.call_later(_WARM_UP_SECONDS, self._warm_up)
        return self._server.port

    async def drain(self, seconds: float, *, retire: bool) -> None:
        """Finish what was accepted, refusing what comes; or serve the connections that there are to their end."""
        if retire:
            await self._server.retire(seconds, _IDLE_SECONDS)
        else:
            await self._server.drain(seconds)

    def hurry(self, seconds: float) -> None:
        """Whatever is under way or begins, drain within `seconds`."""
        self._server.hurry(seconds)

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
        await self._server.close()
        await self._operators.close()
        if self._services.judges is not None:
            self._services.judges.close()
        if self._outbound is not None:
            await self._outbound.pool.close()
            await self._outbound.visits.close()
        if self._simulator is not None:
            await self._simulator.close()
        self._services.semantic.close()
        if self._shared is not None:
            await self._shared.close()
        if self._cache is not None:
            self._cache.flush()
            self._cache.close()
        self._snapshot.close()
        self._journal.close()

    def _warm_up(self) -> None:
        """Answer operators and load what calls upstream need."""
        self._operators_task = self._loop.create_task(self._operators.serve(self._operators_server))
        self._app.warm_up()
        self._services.semantic.start_if_used()
        if not any(provider.api_key for provider in self._configuration.instance_providers.values()):
            import watchllm.sim.app  # noqa: F401  (who has no provider yet will ask the simulated one)

    def _uses_semantic(self) -> bool:
        return self._snapshot.any_project(lambda project: project.settings.semantic != OFF, _PROJECTS_LOOKED_AT)

    def _open_engine(self) -> Engine:
        """In a thread: what look-ups by meaning need is much of what this process loads."""
        from watchllm.compose.semantic import open_engine

        return open_engine(self._configuration, lambda: self._services.outbound.pool)

    def _forget_prompts(self, project: bytes, what: InvalidationFilter) -> None:
        """An invalidation anywhere: the prompts of this host whose answers are gone are of no use."""
        engine = self._services.semantic.engine
        if engine is not None:
            task = self._loop.create_task(_purge(engine, project, what))
            self._purging.add(task)
            task.add_done_callback(self._purging.discard)

    def _make_outbound(self) -> Outbound:
        from watchllm.proxy.upstream import Destinations
        from watchllm.wire.client import ClientPool

        configuration = self._configuration
        private = configuration.allow_private_urls
        pool = ClientPool(
            max_connections=configuration.max_upstream + _OWN_CALLS,
            allow_private=private,
            proxy_env=configuration.proxy_env,
        )
        destinations = Destinations(self._keyring, self._start_simulator, allow_private=private)
        visits = ClientPool(allow_private=private, keepalive_seconds=0.0, proxy_env=configuration.proxy_env)
        self._outbound = Outbound(pool, destinations, visits)
        return self._outbound

    def _make_slots(self) -> Slots:
        from watchllm.proxy.slots import SlotLimits, Slots

        configuration = self._configuration
        limits = SlotLimits(configuration.max_upstream, configuration.max_queued, configuration.queue_timeout)
        half_of_memory = configuration.max_inflight_bytes // 2
        return Slots(self._loop, limits, lambda: self._server.inflight_bytes > half_of_memory)

    def _swept(self, late: float) -> None:
        if self._services.slots_made is not None:
            self._services.slots_made.loop_was(late)

    def _operators_server(self) -> Server:
        from watchllm.proxy.admin import AdminApp

        configuration = self._configuration
        token = None if configuration.admin_addr is None else self._keyring.derive("admin-token").hex()
        app = AdminApp(self._services, self._server, token, configuration.region)
        return Server(app, ServerLimits(max_connections=64), self._loop)

    async def _start_simulator(self) -> Origin:
        """The built-in simulated provider: in this process, on a port of its own, from its first use on."""
        from watchllm.sim.app import SimApp, SimOptions
        from watchllm.wire.server import serve

        if self._starting is None:
            self._starting = self._loop.create_task(serve(SimApp(SimOptions(record=0)), host="127.0.0.1", port=0))
        try:
            self._simulator = await asyncio.shield(self._starting)
        except OSError:
            self._starting = None  # the next call tries again
            problem = "The built-in simulator cannot listen; try again."
            raise ProviderFailed(problem, code="provider_unreachable") from None
        return Origin("http", "127.0.0.1", self._simulator.port, trusted=True)

    def _recorder_lag(self) -> float | None:
        from watchllm.journal.status import recorder_lag

        return recorder_lag(self._configuration.home / "journal")

    def _dependencies(self) -> dict[str, str]:
        from watchllm.journal.status import journal_state, recorder_state

        cache = self._cache or (self._shared and self._shared.cache)
        unwell = cache.health() if cache else None  # it goes on reading, and every request gets its answer
        states = {
            "snapshot": self._snapshot_state(),
            "cache": "ok" if unwell is None else f"degraded: {unwell}",
            "journal": journal_state(self._journal),
            "recorder": recorder_state(self._configuration.home / "journal"),
        }
        sometimes = {
            "semantic": self._services.semantic.state,
            "admin": self._operators.problem,
            "limits": self._services.limiting.state(),
            "redis": None if self._shared is None else self._shared.state(),
        }
        return states | {name: state for name, state in sometimes.items() if state is not None}

    def _snapshot_state(self) -> str:
        if not self._services.tenants.version:
            return "nothing was published yet; run `watchllm up` or `watchllm db upgrade`"
        problem = None if self._shared is None else self._shared.snapshot_problem()
        return "ok" if problem is None else f"degraded: {problem}"


async def _purge(engine: Engine, project: bytes, what: InvalidationFilter) -> None:
    try:
        await engine.purge(project, what)
    except Unavailable:
        pass  # The engine's health tells why; what stays costs a look-up each time, and is never served.


def _open_cache(configuration: Configuration) -> LmdbExactStore:
    folder = os.path.join(configuration.directory, "cache")
    return LmdbExactStore.open(folder, max_bytes=configuration.cache_max_bytes, now_ms=_now_ms)


def _answers(own: LmdbExactStore | None, shared: Shared | None) -> Answers:
    if own is not None:
        return own
    assert shared is not None
    return shared.cache


def _open_shared(configuration: Configuration, loop: asyncio.AbstractEventLoop) -> Shared:
    from watchllm.compose.shared import Shared  # few proxies have a Redis

    return Shared(configuration, loop)


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
