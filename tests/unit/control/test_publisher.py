"""No change is lost and none is overtaken by an older one, whatever dies in between."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete

from watchllm.compose.control import bootstrap, open_control_plane, publisher_for, run_publisher
from watchllm.configuration import load
from watchllm.control import keys, outbox, tables
from watchllm.control.errors import PlansUnusable, PricesUnusable, PublicationFailed
from watchllm.control.publication import Publication
from watchllm.domain.keys import digest
from watchllm.domain.sealing import Keyring
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter

if TYPE_CHECKING:
    from tests.unit.control.conftest import World


def wait_until(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.005)


def test_a_publisher_that_died_after_the_commit_is_made_up_for(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    with world.plane.database.unit_of_work("died") as work:
        keys.revoke(work, made.record.id)
    assert world.reader.key(digest(made.secret)) is not None
    assert world.plane.publisher.publish_pending()
    assert world.reader.key(digest(made.secret)) is None
    assert not world.plane.publisher.publish_pending()


def test_a_lost_outbox_row_is_made_up_for_by_deriving_everything(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    with world.plane.database.unit_of_work("died") as work:
        keys.revoke(work, made.record.id)
        work.connection.execute(delete(tables.outbox))
    assert not world.plane.publisher.publish_pending()
    assert not world.plane.publisher.is_in_step()
    assert world.plane.publisher.publish_all()
    assert world.reader.key(digest(made.secret)) is None
    assert world.plane.publisher.is_in_step()


def test_deriving_everything_changes_nothing_when_nothing_differs(world: "World") -> None:
    world.plane.create_key(world.plane.create_project("Mine").id)
    version = world.reader.version()
    assert not world.plane.publisher.publish_all()
    assert world.reader.version() == version


def test_what_is_gone_from_the_database_leaves_the_snapshot(world: "World") -> None:
    project = world.plane.create_project("Mine")
    with world.plane.database.unit_of_work("cleaner") as work:
        work.connection.execute(delete(tables.projects))
    assert world.plane.publisher.publish_all()
    assert world.reader.project(project.id) is None


def test_a_stale_publisher_never_overwrites_a_newer_state(world: "World") -> None:
    """One publisher is held up before it can apply; meanwhile the key is revoked and published by another."""
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    with world.plane.database.unit_of_work("someone") as work:
        work.publish("key", made.record.id)

    class HeldUp:
        """The snapshot writer, slow to get its lock."""

        def __init__(self) -> None:
            self.waiting, self.go_on = threading.Event(), threading.Event()

        def __getattr__(self, name: str) -> object:
            return getattr(writer, name)

        def update(self, derive: object) -> bool:
            self.waiting.set()
            assert self.go_on.wait(10)
            return writer.update(derive)  # type: ignore[arg-type]

    writer = LmdbSnapshotWriter(world.configuration.home / "snapshot")
    slow = HeldUp()
    keyring = Keyring(lambda: [(world.configuration.home / "secret.key").read_text()])
    stale = publisher_for(world.configuration, world.plane.database, slow, keyring)  # type: ignore[arg-type]
    thread = threading.Thread(target=stale.publish_pending)
    thread.start()
    assert slow.waiting.wait(10)
    world.plane.revoke_key(made.record.id)
    slow.go_on.set()
    thread.join(10)
    assert world.reader.key(digest(made.secret)) is None
    writer.close()


def test_a_row_that_came_during_publication_stays_for_the_next(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    with world.plane.database.unit_of_work("first") as work:
        work.publish("key", made.record.id)
    real = world.plane.publisher._snapshot.update

    def update(derive: object) -> bool:
        changed = real(derive)  # type: ignore[arg-type]
        with world.plane.database.unit_of_work("late") as work:
            work.publish("project", "prj_late")
        return changed

    world.plane.publisher._snapshot.update = update  # type: ignore[method-assign]
    world.plane.publisher.publish_pending()
    with world.plane.database.reading() as connection:
        assert [row.object_id for row in outbox.listed(connection)] == ["prj_late"]


def test_a_failed_publication_is_said_and_the_change_is_kept(world: "World", monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)

    def broken(_derive: object) -> bool:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(world.plane.publisher._snapshot, "update", broken)
        with pytest.raises(PublicationFailed, match=r"saved and will be published.*No space left"):
            world.plane.revoke_key(made.record.id)
    world.plane.publisher.publish_pending()
    assert world.reader.key(digest(made.secret)) is None


def test_the_loop_publishes_what_others_left_and_survives_errors(
    world: "World", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    publisher = world.plane.publisher
    working = publisher.publish_pending
    failures = []

    def fails_twice() -> bool:
        if len(failures) < 2:
            failures.append(1)
            raise RuntimeError("the database is away")
        return working()

    monkeypatch.setattr("watchllm.control.publisher.POLL_SECONDS", 0.005)
    monkeypatch.setattr(publisher, "publish_pending", fails_twice)
    with world.plane.database.unit_of_work("died") as work:
        keys.revoke(work, made.record.id)
    stop = threading.Event()
    thread = threading.Thread(target=publisher.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: world.reader.key(digest(made.secret)) is None, "the revocation reaches the snapshot")
        wait_until(lambda: "works again" in caplog.text, "the recovery is logged")
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert caplog.text.count("the database is away") == 1


def test_a_broken_price_file_does_not_hold_up_a_revocation(world: "World", monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    (world.configuration.home / "prices.toml").write_text("this is not TOML")
    with world.plane.database.unit_of_work("died") as work:
        keys.revoke(work, made.record.id)
    stop = threading.Event()
    monkeypatch.setattr("watchllm.control.publisher.POLL_SECONDS", 0.005)
    thread = threading.Thread(target=world.plane.publisher.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: world.reader.key(digest(made.secret)) is None, "the revocation reaches the snapshot")
    finally:
        stop.set()
        thread.join(10)


def test_one_change_is_published_without_touching_the_others(world: "World") -> None:
    """The promise is 50 ms with 100,000 keys: the work must not grow with their number."""
    project = world.plane.create_project("Mine")
    derived: list[Publication] = []
    real = world.plane.publisher._snapshot.update

    def update(derive: object) -> bool:
        assert callable(derive)
        derived.append(derive())
        return real(lambda: derived[-1])

    world.plane.publisher._snapshot.update = update  # type: ignore[method-assign]
    for _ in range(5):
        world.plane.create_key(project.id)
    assert [len(publication.keys) + len(publication.projects) for publication in derived] == [1] * 5
    assert not any(publication.complete or publication.prices for publication in derived)


def test_a_publisher_of_its_own_works_until_it_is_stopped(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    with world.plane.database.unit_of_work("died") as work:
        keys.revoke(work, made.record.id)
    stop = threading.Event()
    thread = threading.Thread(target=run_publisher, args=(world.configuration, stop))
    thread.start()
    try:
        wait_until(lambda: world.reader.key(digest(made.secret)) is None, "the revocation reaches the snapshot")
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_bootstrap_brings_back_a_deleted_snapshot(tmp_path: Path) -> None:
    configuration = load({"home": str(tmp_path)}, {})
    first = bootstrap(configuration)
    assert first is not None
    for file in (tmp_path / "snapshot").iterdir():
        file.unlink()
    assert bootstrap(configuration) is None
    with open_control_plane(configuration) as plane:
        assert plane.publisher.is_in_step()
        assert plane.publisher._snapshot.version() == 1


@pytest.mark.parametrize("file", ["plans.toml", "prices.toml"])
def test_bootstrap_goes_on_with_what_was_published_where_a_file_cannot_be_understood(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    configuration = load({"home": str(tmp_path)}, {})
    (tmp_path / file).write_text("[team")
    with pytest.raises((PlansUnusable, PricesUnusable), match=file):
        bootstrap(configuration)
    (tmp_path / file).unlink()
    bootstrap(configuration)
    (tmp_path / file).write_text("[team")
    assert bootstrap(configuration) is None
    assert file in caplog.text
