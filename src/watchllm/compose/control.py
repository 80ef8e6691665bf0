"""Builds the control plane: the database, the snapshot in LMDB, the master secret, prices and vendors."""

import getpass
import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from watchllm.compose.database import bring_up_to_date, open_database
from watchllm.compose.installation import SNAPSHOT_FOLDER, check_no_other
from watchllm.compose.left_behind import check_nothing_left_behind
from watchllm.configuration import Configuration, ConfigurationError
from watchllm.control import first_run, installation, plans, prices, schema, secrets, vendors
from watchllm.control.database import Database
from watchllm.control.errors import PlansUnusable, PricesUnusable
from watchllm.control.plane import ControlPlane
from watchllm.control.publication import SnapshotWriter
from watchllm.control.publisher import Publisher, Static
from watchllm.domain.errors import Unavailable
from watchllm.domain.sealing import Keyring
from watchllm.stores import home
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter

_log = logging.getLogger(__name__)


@contextmanager
def open_control_plane(
    configuration: Configuration, *, actor: str | None = None, take_redis: bool = False
) -> Iterator[ControlPlane]:
    """The control plane of this configuration, its schema brought up to date, closed when the block ends. With
    `take_redis` it publishes in the place of another installation.

    Raises OtherInstallation where it would make a database beside that of the installation whose Redis it has,
    ControlError, SealError, HomeUnusable or StoreBroken when a part cannot be used, and Invalid for an empty PostgreSQL
    beside a home with an installation of its own.
    """
    if not take_redis:
        check_no_other(configuration)
    home.prepare(configuration.home)
    keyring = keyring_of(configuration)
    database = open_database(configuration)
    try:
        bring_up_to_date(configuration, database)
        check_nothing_left_behind(configuration, database)
        secrets.check(database, keyring)
        snapshot = open_snapshot(configuration, database, take_redis=take_redis)
        try:
            publisher = publisher_for(configuration, database, snapshot, keyring)
            yield ControlPlane(database, publisher, keyring, vendors.by_name(), actor or f"cli:{_user()}")
        finally:
            snapshot.close()
    finally:
        database.close()


def open_snapshot(configuration: Configuration, database: Database, *, take_redis: bool = False) -> SnapshotWriter:
    """Where `database`, whose schema is up to date, is published: to this host alone, or through Redis to all. Raises
    StoreBroken, DatabaseUnusable, and ConfigurationError for a Redis URL that cannot be used."""
    folder = configuration.home / SNAPSHOT_FOLDER
    if configuration.redis_url is None:
        return LmdbSnapshotWriter(folder)
    from watchllm.stores.redis.snapshot_writer import RedisSnapshotWriter  # few installations have one

    try:
        return RedisSnapshotWriter(configuration.redis_url, folder, installation.of(database), take_over=take_redis)
    except ValueError as error:
        raise ConfigurationError(f"WATCHLLM_REDIS_URL is not valid; expected {error}") from None


def keyring_of(configuration: Configuration) -> Keyring:
    """The master secrets of this configuration and its home. Raises HomeUnusable."""
    return Keyring(
        lambda: home.master_secrets(configuration.home, configuration.secret_key, configuration.secret_key_previous)
    )


def upgrade_schema(configuration: Configuration, *, take_redis: bool = False) -> tuple[bool, str]:
    """Bring the schema up to date, keep it closed to outsiders, and publish what this version knows beside it (vendors,
    prices), so that a proxy that runs alone can start; whether the schema had to be changed, and its version.

    Raises as `open_control_plane` does, and ConfigurationError for `take_redis` where there is none.
    """
    if take_redis and configuration.redis_url is None:
        raise ConfigurationError("there is no Redis to take over: WATCHLLM_REDIS_URL is not set")
    if not take_redis:
        check_no_other(configuration)
    home.prepare(configuration.home)
    with closing(open_database(configuration)) as database:
        upgraded = bring_up_to_date(configuration, database)
        schema.close(database.engine)
    with open_control_plane(configuration, take_redis=take_redis) as plane:
        _publish(plane.publisher)
    return upgraded, schema.HEAD


def run_publisher(configuration: Configuration, stop: threading.Event) -> None:
    """Publish until `stop` is set, for a thread of the process that outlives the commands (the console's).

    Raises as `open_control_plane` does, at its start only.
    """
    with open_control_plane(configuration, actor="publisher") as plane:
        plane.publisher.run(stop)


def publisher_for(
    configuration: Configuration, database: Database, snapshot: SnapshotWriter, keyring: Keyring
) -> Publisher:
    """A publisher with this configuration's prices, vendors and plans."""
    return Publisher(
        database, snapshot, keyring, lambda: _static(configuration), lambda: plans.plans(configuration.home)
    )


def bootstrap(configuration: Configuration) -> first_run.FirstRun | None:
    """Make everything ready; on the very first run also an owner, a project and a key, to be shown once.

    The first project answers from the first provider that the operator configured, else from the simulated one.
    Publishes everything, where Redis is configured if it can be reached; what was published before serves on where
    the operator's prices or plans cannot be understood. Idempotent; of two processes that start at once, one gets the
    FirstRun. Raises as `open_control_plane` does, OtherInstallation where Redis is another one's, and PricesUnusable or
    PlansUnusable where nothing was published yet.
    """
    configured = (name for name, provider in configuration.instance_providers.items() if provider.api_key)
    provider = next((name for name in configured if name in vendors.names()), "sim")
    with open_control_plane(configuration, actor="first-run") as plane:
        if first_run.is_due(plane.database):
            # It raises where Redis is another installation's: before anything is made that is shown once.
            _serves(plane.publisher)
        made = first_run.run(plane.database, provider)
        try:
            _publish(plane.publisher)
        except Unavailable as error:
            # Proxies serve with what they have; whoever publishes goes on trying.
            _log.warning("nothing is published yet: %s", error)
        return made


def _publish(publisher: Publisher) -> None:
    """Everything. Where the operator's prices or plans cannot be understood, what was published before serves on."""
    try:
        publisher.publish_pending()
        publisher.publish_all()
    except (PricesUnusable, PlansUnusable) as error:
        if not _serves(publisher):
            raise
        _log.error("what was published before serves on: %s", error)


def _serves(publisher: Publisher) -> bool:
    try:
        return publisher.has_published()
    except Unavailable:
        return True  # Proxies have copies of it.


def _static(configuration: Configuration) -> Static:
    book = prices.book(vendors.price_books(), datetime.now(UTC))
    return Static(vendors.vendors(), book, prices.own(configuration.home))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return "unknown"
