"""A usage store that tells all proxies, wherever they run, who has spent what, after each batch.

What is told are totals of the database, and up to where in each series of journals they count: so it may be told twice,
late, or by several recorders. Only organizations whose limits somebody has to keep are told of; which, the proxies ask
for. Nothing here keeps the database waiting for longer than a moment: while it cannot be told, it is recorded, and told
anew in full afterwards.
"""

import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Protocol

from watchllm.domain.ledger import NotTold, Periods, Place
from watchllm.journal.ledgered import periods_told, places_of
from watchllm.journal.recorder import Batch, Position, Retention, SetAside, UsageStore

_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.5
# Who was not told of the end of a journal when everybody was has forgotten what was not counted of it after an hour.
_ENDS_TOLD_SECONDS = 7200
# How long organizations are told of before the next batch is recorded.
_TELL_SECONDS = 0.2


class Accounts(Protocol):
    """Where it is told. Every method raises NotTold."""

    def wanted(self) -> set[str]:
        """Organizations that are to be told of."""
        ...

    def kept(self) -> set[str]:
        """Organizations that were told of."""
        ...

    def write(
        self, spent: dict[str, dict[str, Periods]], places: dict[str, Place], others: dict[str, Place]
    ) -> set[str]:
        """What some in each of these organizations have spent. Nobody else has used anything up to `places` that was
        not told before; up to `others` somebody may have. Those of which nothing is kept, where it had no effect."""
        ...

    def asked_for(self, organizations: set[str]) -> set[str]:
        """Which of these somebody is telling of, has told of, or is to tell of."""
        ...

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        """What everybody in an organization has spent; it is kept from now on."""
        ...

    def counted(self, places: dict[str, Place]) -> None:
        """Everybody was told of all up to these places."""
        ...

    def expected(self) -> set[str]:
        """Series of which `counted` was told a place that is not their end: that is to be told."""
        ...

    def knows(self, series: set[str]) -> bool:
        """Whether places of all of these were told by `counted`, and nothing was lost since the last time."""
        ...


class SharedUsageStore(UsageStore, Protocol):
    """The recorder's database, which also knows who belongs to whom, and of other hosts. Raises StoreUnavailable."""

    def positions_everywhere(self, since_ms: int | None = None, also: Collection[str] = ()) -> dict[str, Position]:
        """As `positions`, of the journals of all hosts that record in this database; of those that are finished only
        what ended since then (None: none), and these `also`."""
        ...

    def members(self, organization: str) -> set[str]:
        """The organization's id, and those of its projects and their keys."""
        ...


class _Round:
    """Organizations that are told of in full, some at a time. At its end everybody was told of all up to `places`. What
    is recorded meanwhile is told at once, and counts up to its places only of those whom it concerns: of others what
    was before may not have been told yet."""

    def __init__(self, due: set[str], places: dict[str, Place]) -> None:
        self.due = due
        self.places = places
        self.touched: set[str] = set()
        """Organizations of which some was told meanwhile."""


class SharedLedger:
    """Implements `journal.recorder.UsageStore` on `store`. `tend` has to be called often."""

    def __init__(
        self,
        store: SharedUsageStore,
        accounts: Accounts,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem: str | None = None
        """Why they could not be told; None = they were."""
        self._store = store
        self._accounts = accounts
        self._now = now
        self._monotonic = monotonic
        self._all_is_due = True
        self._round: _Round | None = None
        self._not_before = 0.0
        self._live: set[str] = set()
        self._look_at = 0.0

    def positions(self) -> dict[str, Position]:
        self._all_is_due = True  # What was recorded last may not have been told.
        positions = self._store.positions()
        self._live = {series for series, position in positions.items() if not position.finished}
        return positions

    def set_aside(self) -> list[SetAside]:
        return self._store.set_aside()

    def apply(self, batch: Batch) -> int:
        count = self._store.apply(batch)
        for series, position in batch.positions.items():
            (self._live.discard if position.finished else self._live.add)(series)
        if batch.finished or batch.readable_now:
            self._all_is_due = True  # Whom it concerns is not in the batch.
        elif not self._all_is_due:
            self._try(lambda: self._tell(batch))
        return count

    def expire(self, retention: Retention) -> bool:
        return self._store.expire(retention)

    def catch_up(self) -> bool:
        if not self._store.catch_up():
            return False
        self._all_is_due = True  # Whom it concerns is not known any more.
        return True

    def spent(self, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
        return self._store.spent(subjects, periods)

    def organizations_of(self, projects: Iterable[str]) -> dict[str, str]:
        return self._store.organizations_of(projects)

    def tend(self) -> None:
        """Tell what is asked for or due."""
        if self._monotonic() >= self._not_before:
            self._try(self._tell_what_is_due)

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except NotTold as error:
            self.problem = str(error)
            self._all_is_due = True
            self._not_before = self._monotonic() + _PAUSE_SECONDS
        else:
            self.problem = None

    def _tell_what_is_due(self) -> None:
        if self._live and self._monotonic() >= self._look_at:
            # Proxies wait for the places of this host, which nobody else tells again where they were lost.
            self._all_is_due = not self._accounts.knows(self._live) or self._all_is_due
            self._look_at = self._monotonic() + _LOOK_SECONDS
        wanted = self._accounts.wanted()
        begins = self._all_is_due and self._round is None
        if not wanted and not begins and self._round is None:
            return
        # Before the totals: what is recorded in between counts in them, and not less.
        ended_since = int((self._now().timestamp() - _ENDS_TOLD_SECONDS) * 1000)
        places = places_of(self._store.positions_everywhere(ended_since, self._accounts.expected()))
        if begins:
            self._round = _Round(self._accounts.kept(), places)
            self._all_is_due = False
        self.catch_up()
        self._tell_some(wanted, places)

    def _tell_some(self, wanted: set[str], places: dict[str, Place]) -> None:
        """First of those that somebody waits for."""
        due = set() if self._round is None else self._round.due
        until = self._monotonic() + _TELL_SECONDS
        for organization in [*sorted(wanted), *sorted(due - wanted)]:
            spent = self._store.spent(self._store.members(organization), periods_told(self._now()))
            self._accounts.write_all(organization, spent, places)
            due.discard(organization)
            if self._monotonic() > until:
                return
        if self._round is not None:
            self._end_round(self._round)

    def _end_round(self, ended: _Round) -> None:
        # By now everybody was told of all of these, too: nothing up to there needs to be remembered any more.
        self._accounts.write({organization: {} for organization in ended.touched}, ended.places, {})
        self._accounts.counted(ended.places)
        self._round = None

    def _tell(self, batch: Batch) -> None:
        places = places_of(batch.positions)
        # What the recorders of other hosts have counted is in the totals, too. Before these, as above.
        others = {name: at for name, at in places_of(self._store.positions_everywhere()).items() if name not in places}
        if self.catch_up():
            return
        some = self._spent_in(batch)
        under_way = self._round
        if under_way is None:
            unknown = self._accounts.write(some, places, others)
        else:
            unknown = self._accounts.write(some, {}, others | places)
        # Another one may tell of them just now, of less than this batch has added.
        missed = self._accounts.asked_for(unknown)
        if under_way is not None:
            under_way.due |= missed
            under_way.touched |= some.keys()
            under_way.places = under_way.places | places
        elif missed:
            self._round = _Round(missed, places)
        elif places:
            self._accounts.counted(places)

    def _spent_in(self, batch: Batch) -> dict[str, dict[str, Periods]]:
        """By organization, what those have spent in all whom a batch concerns."""
        projects = self._store.organizations_of({event.project_id for event, _ in batch.settled})
        touched: dict[str, set[str]] = {organization: {organization} for organization in projects.values()}
        for event, _ in batch.settled:
            organization = projects.get(event.project_id)
            if organization is not None:
                touched[organization].update((event.project_id, event.key_id))
        # Asked once for all: each question is a transaction.
        spent = self._store.spent(set().union(*touched.values()), periods_told(self._now()))
        return {
            organization: {name: spent[name] for name in subjects if name in spent}
            for organization, subjects in touched.items()
        }
