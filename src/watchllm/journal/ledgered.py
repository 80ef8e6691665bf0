"""A usage store that tells the proxies of its host, after each batch, who has spent what."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

from watchllm.domain.ledger import NotTold, Periods, Place
from watchllm.journal.recorder import Batch, Position, Retention, SetAside, UsageStore


class Ledger(Protocol):
    """Where they are told. Every method raises NotTold."""

    def places(self) -> dict[str, Place]: ...

    def write(self, spent: dict[str, Periods], places: dict[str, Place]) -> None: ...

    def replace(self, spent: dict[str, Periods], places: dict[str, Place]) -> None: ...


class Ledgered:
    """Implements `journal.recorder.UsageStore` on `store`. The ledger is written after the database and before any
    segment is removed; where the two differ after a crash, or because it could not be written, it is written anew.
    Until then the proxies know of records that are gone and unknown to them, and serve nobody with a budget whom they
    do not know already."""

    def __init__(
        self, store: UsageStore, ledger: Ledger, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.problem: str | None = None
        """Why the proxies could not be told; None = they were."""
        self._store = store
        self._ledger = ledger
        self._now = now
        self._written_on: date | None = None

    def positions(self) -> dict[str, Position]:
        positions = self._store.positions()
        caught_up = self._store.catch_up()
        self._tell(lambda: self._check(positions, caught_up))
        return positions

    def set_aside(self) -> list[SetAside]:
        return self._store.set_aside()

    def apply(self, batch: Batch) -> int:
        count = self._store.apply(batch)
        if batch.finished or batch.readable_now or self.problem is not None:
            # What was closed or taken back is not in the batch, nor what was not told before.
            self._tell(self._write_anew)
        else:
            self._tell(lambda: self._write(batch))
        return count

    def expire(self, retention: Retention) -> bool:
        more = self._store.expire(retention)
        if not more and self._written_on != self._now().date():
            # Without the days and months that are over, and without who is not there any more.
            self._tell(self._write_anew)
        return more

    def catch_up(self) -> bool:
        any_due = self._store.catch_up()
        if any_due or self.problem is not None:
            self._tell(self._write_anew)
        return any_due

    def spent(self, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
        return self._store.spent(subjects, periods)

    def organizations_of(self, projects: Iterable[str]) -> dict[str, str]:
        return self._store.organizations_of(projects)

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except NotTold as error:
            self.problem = str(error)
        else:
            self.problem = None

    def _check(self, positions: dict[str, Position], caught_up: bool) -> None:
        if caught_up or not positions or self._ledger.places() != places_of(positions):
            self._write_anew()

    def _write(self, batch: Batch) -> None:
        projects = {event.project_id for event, _ in batch.settled}
        subjects = projects | {event.key_id for event, _ in batch.settled}
        subjects.update(self._store.organizations_of(projects).values())
        self._ledger.write(self._store.spent(subjects, periods_told(self._now())), places_of(batch.positions))

    def _write_anew(self) -> None:
        now = self._now()
        # One recorder works on a home: nothing is recorded between the two.
        places = places_of(self._store.positions())
        self._ledger.replace(self._store.spent(None, periods_told(now)), places)
        self._written_on = now.date()


def periods_told(now: datetime) -> set[str]:
    """Those that a proxy may ask for: its clock may be a little behind or ahead."""
    days = (now - timedelta(days=1), now, now + timedelta(days=1))
    return {"total", *(f"{day:%Y-%m}" for day in days), *(f"{day:%Y-%m-%d}" for day in days)}


def places_of(positions: dict[str, Position]) -> dict[str, Place]:
    return {series: Place(*position) for series, position in positions.items()}
