"""Brings known answers into this host's exact cache, from lines of JSON: `watchllm cache import`.

It writes to the cache's file as every proxy does, so that they answer from it as soon as it is committed, which it is
before this returns. Nothing needs to run.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import BinaryIO
from urllib.parse import urlsplit

import msgspec

from watchllm.compose.cache_admin import OperatedStore, now_ms, open_store
from watchllm.compose.installation import SNAPSHOT_FOLDER
from watchllm.compose.proxy_settings import instance_credentials
from watchllm.configuration import Configuration
from watchllm.domain.errors import GatewayError
from watchllm.proxy.known_answers import KnownAnswer, KnownAnswers
from watchllm.proxy.tenants import Tenants
from watchllm.routing.target import Target
from watchllm.stores.lmdb.cache import LmdbExactStore, largest_entry
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader

_MOST_ERRORS = 20
_MOST_REASON = 500
_LINES_A_BATCH = 500
_BYTES_A_BATCH = 8 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Refused(msgspec.Struct, frozen=True):
    """A line, counted from 1, of which nothing was kept."""

    line: int
    reason: str


class Source(msgspec.Struct):
    """A provider, at the scheme and host of its base URL, whose answers the imported ones are taken to be."""

    provider: str
    origin: str
    answers: int = 0


class Imported(msgspec.Struct):
    """Counts of lines. `kept`: a newer answer to the same was in the cache, and stays. `evicted` counts the entries,
    of whatever project, that made room meanwhile; `errors` has the first of those refused."""

    project_id: str
    dry_run: bool
    imported: int = 0
    kept: int = 0
    refused: int = 0
    evicted: int = 0
    providers: list[Source] = []
    errors: list[Refused] = []


class _Report:
    """Counts what becomes of each line; `tell` is called with each that is refused."""

    def __init__(self, result: Imported, tell: Callable[[Refused], None]) -> None:
        self.result = result
        self._tell = tell
        self._sources: dict[tuple[str, str], Source] = {}

    def imported(self, target: Target) -> None:
        self.result.imported += 1
        parts = urlsplit(target.base_url)
        origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        source = self._sources.get((target.provider, origin))
        if source is None:
            source = self._sources[target.provider, origin] = Source(target.provider, origin)
            self.result.providers.append(source)
        source.answers += 1

    def refused(self, line: int, reason: str) -> None:
        self.result.refused += 1
        # It may quote the line, which nobody has looked at before it is shown in a terminal.
        shown = "".join(filter(str.isprintable, reason))[:_MOST_REASON]
        refused = Refused(line, shown)
        self._tell(refused)
        if len(self.result.errors) < _MOST_ERRORS:
            self.result.errors.append(refused)


class _Batch:
    """Writes answers, and sees of a batch at a time whether they are there: the store drops what it cannot keep."""

    def __init__(self, store: OperatedStore, report: _Report) -> None:
        self._store = store
        self._report = report
        # An invalidation that comes while this runs is of all that it brings, also of what it has not read yet.
        self._begun_ms = now_ms()
        self._written: list[tuple[int, KnownAnswer]] = []
        self._size = 0

    def add(self, line: int, known: KnownAnswer) -> None:
        entries = {key: entry for key, entry in known.entries.items() if not self._has_newer(known, key)}
        if not entries:
            self._report.result.kept += 1
            return
        for key, entry in entries.items():
            self._store.put(known.partition, key, entry, self._begun_ms)
            self._size += len(entry.body)
        self._written.append((line, known))
        if len(self._written) >= _LINES_A_BATCH or self._size >= _BYTES_A_BATCH:
            self.settle()

    def settle(self) -> None:
        """Wait until what was written is on disk, and count it."""
        self._store.flush()
        for line, known in self._written:
            if all(self._is_there(known, key) for key in known.entries):
                self._report.imported(known.target)
            else:
                self._report.refused(line, self._why_lost())
        self._written, self._size = [], 0

    def _is_there(self, known: KnownAnswer, key: bytes) -> bool:
        held = self._store.get(known.partition, key)
        return held is not None and held.created_ms >= known.entries[key].created_ms

    def _has_newer(self, known: KnownAnswer, key: bytes) -> bool:
        held = self._store.get(known.partition, key)
        return held is not None and held.created_ms > known.entries[key].created_ms and held.is_fresh(now_ms())

    def _why_lost(self) -> str:
        return self._store.health() or "it was invalidated, or had to make room for others, while this was running"


def import_answers(
    configuration: Configuration,
    project_id: str,
    stream: BinaryIO,
    tell: Callable[[Refused], None],
    *,
    dry_run: bool = False,
) -> Imported:
    """Bring the lines of `stream` into the cache of a project's live keys; with `dry_run`, only judge them.

    A line may have `max_body_bytes`, one of which is in memory at a time. Raises GatewayError where the project is not
    known to the proxies or keeps no answers, and HomeUnusable or StoreBroken.
    """
    result = Imported(project_id, dry_run)
    report = _Report(result, tell)
    with closing(LmdbSnapshotReader(configuration.home / SNAPSHOT_FOLDER)) as snapshot:
        tenants = Tenants(snapshot, instance_credentials(configuration))
        largest = largest_entry(configuration.cache_max_bytes)
        answers = KnownAnswers(tenants, project_id, largest=largest, now_ms=now_ms)
        answers.check()
        lines = _lines(stream, configuration.max_body_bytes, report)
        if dry_run:
            asyncio.run(_take(answers, lines, report, lambda _, known: report.imported(known.target)))
        else:
            with open_store(configuration) as store:
                batch = _Batch(store, report)
                asyncio.run(_take(answers, lines, report, batch.add))
                batch.settle()
                if isinstance(store, LmdbExactStore):  # What Redis evicts, it does not say.
                    result.evicted = store.counters()["evicted"]
    result.errors.sort(key=lambda refused: refused.line)
    return result


async def _take(
    answers: KnownAnswers,
    lines: Iterator[tuple[int, bytes]],
    report: _Report,
    keep: Callable[[int, KnownAnswer], None],
) -> None:
    for number, line in lines:
        try:
            known = await answers.read(line)
        except GatewayError as error:
            report.refused(number, str(error))
        else:
            keep(number, known)


def _lines(stream: BinaryIO, longest: int, report: _Report) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; what is too long or cannot be read is refused."""
    number = 0
    try:
        while line := stream.readline(longest + 1):
            number += 1
            if len(line) > longest and not line.endswith(b"\n"):
                report.refused(number, f"it is longer than {longest} bytes (max_body_bytes)")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(longest)
                continue
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if not line.isspace():
                yield number, line
    except OSError as error:
        report.refused(number + 1, f"it cannot be read, nor can what follows: {error.strerror}")
