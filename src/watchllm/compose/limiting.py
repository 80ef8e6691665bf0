"""Builds the limits of a proxy process: shared with all others in Redis, where there is one; else its own meters, and
what was spent before it began (ledger and journals)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

from watchllm.limits.limiter import Limiter
from watchllm.limits.spending import Moment, Spent, moment_of_day
from watchllm.proxy.limiting import Limiting
from watchllm.proxy.local_limits import LocalLimits

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from watchllm.compose.shared import Shared
    from watchllm.configuration import Configuration
    from watchllm.domain.snapshot import SnapshotReader
    from watchllm.journal.journal import Journal
    from watchllm.journal.spent_since import End, SpentSince

LEDGER_FOLDER = "ledger"
_RETRY_SECONDS = 0.05
# The recorder closes what a killed process left open within about a second.
_PATIENCE_SECONDS = 3.0
_GIVES_UP_SECONDS = 4.5


def open_limiting(
    configuration: Configuration,
    journal: Journal,
    snapshot: SnapshotReader,
    shared: Shared | None,
    loop: asyncio.AbstractEventLoop,
) -> Limiting:
    """The limits of this process; what is needed for the past is opened when it is first asked for."""
    if shared is not None:
        return Limiting(shared.keep_limits(journal))
    return Limiting(LocalLimits(Limiter(), _Past(configuration, journal, snapshot, loop).spent, loop))


class _Past:
    """What was spent before this process counted."""

    def __init__(
        self,
        configuration: Configuration,
        journal: Journal,
        snapshot: SnapshotReader,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._directory = configuration.directory
        self._journal = journal
        self._snapshot = snapshot
        self._loop = loop
        self._since: SpentSince | None = None
        # One of its own: many who ask at once must not keep the threads of others (names of hosts, disks) waiting.
        self._thread: ThreadPoolExecutor | None = None

    async def spent(self, names: list[str], at: Moment) -> Mapping[str, Spent]:
        """What each of `names` has spent up to now, as of `at`. Raises NotYetKnown, StoreBroken, OSError."""
        from concurrent.futures import ThreadPoolExecutor

        from watchllm.journal.spent_since import End, NotYetKnown

        place = self._journal.end()
        if place is None:
            raise NotYetKnown("the journal cannot be written now")
        end = End(self._journal.series, place)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "watchllm-spent")
        began = monotonic()
        while True:
            waited = monotonic() - began
            try:
                return await self._loop.run_in_executor(
                    self._thread, self._read, names, at, end, waited < _PATIENCE_SECONDS
                )
            except NotYetKnown:
                if waited > _GIVES_UP_SECONDS:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    def _read(self, names: list[str], at: Moment, end: End, patient: bool) -> Mapping[str, Spent]:
        told, sums = self._opened().up_to(end, names, patient=patient)
        month, today = _month(at), _day(at)
        spent = {}
        for name in names:
            periods = told.get(name, {})
            requests, month_nanos = periods.get(month, (0, 0))
            day_nanos, total = periods.get(today, (0, 0))[1], periods.get("total", (0, 0))[1]
            for day, (more, nanos) in sums.days[name].items():
                total += nanos
                if moment_of_day(day).month == at.month:
                    requests += more
                    month_nanos += nanos
                if day == at.day:
                    day_nanos += nanos
            spent[name] = Spent(requests, day_nanos, month_nanos, total)
        return spent

    def _opened(self) -> SpentSince:
        from watchllm.journal.spent_since import SpentSince
        from watchllm.stores.lmdb.ledger import LmdbLedger

        if self._since is None:
            ledger = LmdbLedger(os.path.join(self._directory, LEDGER_FOLDER))
            self._since = SpentSince(ledger, os.path.join(self._directory, "journal"), self._organization)
        return self._since

    def _organization(self, project_id: str) -> str | None:
        project = self._snapshot.project(project_id)
        return None if project is None else project.organization_id


def _month(at: Moment) -> str:
    year, month = divmod(at.month, 12)
    return f"{year}-{month + 1:02d}"


def _day(at: Moment) -> str:
    from time import gmtime, strftime

    return strftime("%Y-%m-%d", gmtime(at.day * 86_400))
