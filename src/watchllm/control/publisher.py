"""Brings changes to the proxies: works the outbox off, and re-derives everything at start and every minute.

Publishing takes the snapshot's lock first and reads the database inside it. So what is published is never older than
what is there, however slow a publisher is. Outbox rows are deleted after the publication: one that died in between
leaves them, and publishing twice does no harm. Should a row ever be lost, the minute's re-derivation finds the change.

Where plans.toml lacks the plan of an organization, that one's projects are left as they were published last: with which
limits they may be served is not known. Their rows do not wait; the minute's re-derivation brings them when the plan is
back. Where a home has no prices.toml, the prices that another one published from its own stay as they are, too.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from watchllm.control import keys, organizations, outbox, prices, records, secrets
from watchllm.control.database import KEY, PROJECT, Database
from watchllm.control.errors import OnlyKeysPublished, PlansUnusable
from watchllm.control.plans import FILE_NAME, Plan
from watchllm.control.publication import OwnPrices, Publication, SnapshotWriter
from watchllm.domain.sealing import Keyring
from watchllm.domain.snapshot import PriceRow, Vendor

POLL_SECONDS = 0.5
REDERIVE_SECONDS = 60.0
_MANY = 500
_NAMED = 3

_log = logging.getLogger(__name__)


class Static(NamedTuple):
    """What is published beside the database: `prices` are those of the price book, by provider, `own_prices` the
    operator's, None where this home has no prices.toml."""

    vendors: tuple[Vendor, ...]
    prices: dict[str, tuple[PriceRow, ...]]
    own_prices: OwnPrices | None


StaticPart = Callable[[], Static]
"""Called anew for each full publication, so that changed prices arrive."""


class Publisher:
    """Publishes from `database` into `snapshot`. Safe in any number of processes at once."""

    def __init__(
        self,
        database: Database,
        snapshot: SnapshotWriter,
        keyring: Keyring,
        static: StaticPart,
        plans: Callable[[], dict[str, Plan]],
    ) -> None:
        self._database = database
        self._snapshot = snapshot
        self._keyring = keyring
        self._static = static
        self.plans = plans
        """The plans as they are now. Raises PlansUnusable."""
        self._told = ""
        self._held: OwnPrices = {}
        self._held_told = ""

    def publish_pending(self, own_projects: Collection[str] = ()) -> bool:
        """Publish what the outbox names, and `own_projects`, which another process, of a home with other plans, may
        have taken from there; whether there was anything. In force on this host when it returns, but for other
        projects of organizations without a plan.

        Raises OnlyKeysPublished where plans.toml cannot be understood, and PlansUnusable where, besides, nothing was
        published before, and where one of `own_projects` waits for its plan.
        """
        if not self.has_published():
            # The first change of an installation: proxies need vendors, prices and shared secrets beside it.
            self.publish_all()
        with self._database.reading() as connection:
            if outbox.is_empty(connection) and not own_projects:
                return False
        pending: list[outbox.Pending] = []
        waiting: set[str] = set()
        unusable: PlansUnusable | None = None

        def derive() -> Publication:
            nonlocal pending, waiting, unusable
            with self._database.reading() as connection:
                pending, waiting, unusable = outbox.listed(connection), set(), None
                publication = _keys(connection, pending)
                try:
                    waiting = _add_projects(publication, connection, pending, own_projects, self.plans)
                except PlansUnusable as error:
                    # It fails what projects are published with, and must not hold up the revocation of a key.
                    pending, unusable = [row for row in pending if row.kind == KEY], error
                return publication

        self._snapshot.update(derive)
        with self._database.unit_of_work("publisher") as work:
            outbox.forget(work.connection, [row.id for row in pending])
        if unusable is not None:
            raise OnlyKeysPublished(str(unusable)) from unusable
        if not waiting.isdisjoint(own_projects):
            self.check_plans(sorted(own_projects))
        return True

    def has_published(self) -> bool:
        """Whether proxies have anything to serve with. Raises Unavailable."""
        return self._snapshot.version() != 0

    def publish_all(self) -> bool:
        """Derive the whole snapshot again; whether it had to be changed. Only then is the lock taken."""
        # All differs from nothing: it is derived once then, which is half of what a first command takes.
        is_empty = self._snapshot.version() == 0
        changed = (is_empty or self._snapshot.differs(self._everything())) and self._snapshot.update(self._everything)
        self._tell(self.lacking_plans())
        self._tell_held(self.held_prices())
        return changed

    def lacking_plans(self, project_ids: Sequence[str] | None = None) -> str:
        """Which organizations have a plan that is not there any more, of those of these projects or of all, and what
        to do; empty = none. Raises PlansUnusable."""
        plans = self.plans()
        with self._database.reading() as connection:
            some = [None] if project_ids is None else _batches(project_ids)
            found = [one for ids in some for one in organizations.without_plan(connection, plans, ids)]
        if not found:
            return ""
        named = ", ".join(f"{one.plan!r}, which {one.id} has" for one in found[:_NAMED])
        more = f", and those of {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return (
            f"{FILE_NAME} has no plan {named}{more} any more: put it back, or `watchllm organization set {found[0].id} "
            "plan=…`; until then proxies know of their projects what was published last"
        )

    def check_plans(self, project_ids: Sequence[str] | None = None) -> None:
        """Raise PlansUnusable where these projects, or any, wait for a plan."""
        lacking = self.lacking_plans(project_ids)
        if lacking:
            raise PlansUnusable(lacking)

    def prices(self) -> dict[str, tuple[PriceRow, ...]]:
        """The price rows of each provider as they would be published now. Raises PricesUnusable."""
        static = self._static()
        return prices.with_own(static.prices, self._own_prices(static))

    def held_prices(self) -> str:
        """Whose prices of the operator this home does not know, which stay as they were published when it last derived
        everything, and what to do; empty = none."""
        if not self._held:
            return ""
        named = ", ".join(sorted(self._held)[:_NAMED]) + (", …" if len(self._held) > _NAMED else "")
        return (
            f"this home has no {prices.FILE_NAME}, so your prices for {named} stay as another one published them: put "
            "the same file here; an empty one removes them"
        )

    def is_in_step(self) -> bool:
        """Whether the proxies of this host know all that the database says, and nothing else; projects that wait for
        a plan aside."""
        return not self._snapshot.differs(self._everything())

    def run(self, stop: threading.Event) -> None:
        """Publish until `stop` is set. An error is logged and tried again: proxies go on with what they have."""
        until_rederived = 0.0
        failing = False
        while True:
            try:
                # Changes first: a broken prices.toml, which fails the rest, must not hold up a revocation.
                self.publish_pending()
                if until_rederived <= 0:
                    self.publish_all()
                    until_rederived = REDERIVE_SECONDS
                if failing:
                    _log.warning("publication works again")
                failing = False
            except Exception as error:  # noqa: BLE001 (whatever it was, the next round must come)
                if not failing:
                    _log.error("publication failed, will be tried again: %s", error)
                failing = True
            if stop.wait(POLL_SECONDS):
                return
            until_rederived -= POLL_SECONDS

    def _tell(self, lacking: str) -> None:
        if lacking and lacking != self._told:
            _log.error("some projects are not published: %s", lacking)
        elif self._told and not lacking:
            _log.warning("every organization has a plan again")
        self._told = lacking

    def _tell_held(self, held: str) -> None:
        if held and held != self._held_told:
            _log.warning("prices are held back: %s", held)
        self._held_told = held

    def _own_prices(self, static: Static) -> OwnPrices:
        self._held = self._snapshot.kept_prices() if static.own_prices is None else {}
        return self._held if static.own_prices is None else static.own_prices

    def _everything(self) -> Publication:
        static = self._static()
        own_prices = self._own_prices(static)
        plans = self.plans()
        with self._database.reading() as connection:
            ready, waiting = records.published(connection, plans)
            return Publication(
                # Revoked keys are in it as removed, the others that are to go are those it does not name.
                keys=keys.published(connection),
                projects=dict(ready),
                vendors=static.vendors,
                prices=prices.with_own(static.prices, own_prices),
                own_prices=own_prices,
                secrets=secrets.shared(connection, self._keyring),
                complete=True,
                kept_projects=waiting,
            )


def _keys(connection: Connection, pending: Iterable[outbox.Pending]) -> Publication:
    publication = Publication()
    for some in _batches(sorted({row.object_id for row in pending if row.kind == KEY})):
        publication.keys.update(keys.published(connection, some))
    return publication


def _add_projects(
    publication: Publication,
    connection: Connection,
    pending: Iterable[outbox.Pending],
    own: Iterable[str],
    plans: Callable[[], Mapping[str, Plan]],
) -> set[str]:
    """Add those that `pending` names and `own`; which of them wait for a plan. Raises PlansUnusable, nothing being
    added."""
    wanted = {row.object_id for row in pending if row.kind == PROJECT}.union(own)
    known = plans() if wanted else {}
    waiting: set[str] = set()
    for some in _batches(sorted(wanted)):
        ready, without_plan = records.published(connection, known, some)
        publication.projects.update(dict.fromkeys(set(some) - without_plan))
        publication.projects.update(ready)
        waiting |= without_plan
    return waiting


def _batches(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    # A database bounds the parameters of one statement.
    return (ids[start : start + _MANY] for start in range(0, len(ids), _MANY))
