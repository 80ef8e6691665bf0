"""From SQLite into PostgreSQL: everything or nothing, once, and what is there goes on working."""

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, select

from tests.support.journal import any_event, call, event, journal_in, usage_in
from tests.support.postgres import PASSWORD, SECRET_KEY, Connected
from tests.support.product import Installation
from watchllm.analytics import tables as usage
from watchllm.compose import move as moving
from watchllm.compose.control import bootstrap, keyring_of, open_control_plane
from watchllm.compose.database import open_engine
from watchllm.configuration import Configuration, load
from watchllm.control import provider_keys, tables
from watchllm.control.errors import ControlError, DatabaseUnusable, Invalid
from watchllm.journal.status import lock_recorder
from watchllm.stores import home

ALL = [*tables.metadata.sorted_tables, *usage.metadata.sorted_tables]


def told(_table: str, _rows: int) -> None:
    """Nobody looks."""


def contents(engine: Engine, *, of_home: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, those of the log without the number that a database gives them."""
    found = {}
    with engine.connect() as connection:
        for table in ALL:
            columns = [column for column in table.c if (table.name, column.name) != ("usage_logs", "id")]
            rows = [tuple(row) for row in connection.execute(select(*columns))]
            if of_home is not None and "home" in table.c:
                rows = [(*row[:-1], of_home) for row in rows]
            found[table.name] = sorted(rows, key=repr)
    engine.dispose()
    return found


@pytest.fixture
def source(tmp_path: Path) -> Configuration:
    """A home with something in every table."""
    import random

    configuration = load({"home": str(tmp_path / "home"), "secret_key": SECRET_KEY}, {})
    made = bootstrap(configuration)
    assert made is not None
    with open_control_plane(configuration) as plane:
        plane.add_provider_key(made.project_id, "openai", "sk-of-the-project-123456")
        plane.create_token(name="of a script")
        with plane.database.unit_of_work("test") as work:
            work.publish("project", made.project_id)
            row = {"name": "smart", "choices": "[]", "fallbacks": "[]", "retries": 1, "created_ms": 1}
            work.connection.execute(tables.routes.insert().values(project_id=made.project_id, **row))
    choose = random.Random(5)
    journal = journal_in(configuration.home)
    for _ in range(500):
        journal.settled(any_event(choose))
    journal.settled(event(user="None", model="a\tb\\", session="a\0b"))
    journal.opened(call("req_open"))
    journal.append(9 << 4 | 1, b"\x91\xa1x")
    with usage_in(configuration.home) as recorded:
        recorded.record()
        columns = "key_id, project_id, at_ms, endpoint, provider, status, ended, streamed"
        values = "'key_1', 'prj_1', 1, 'files', 'openai', 200, 'complete', false"
        recorded.change(f"INSERT INTO spending_due ({columns}) VALUES ({values})")
    journal.close()
    return configuration


def test_everything_is_moved_and_the_source_is_as_it_was(source: Configuration, empty_database: Connected) -> None:
    before = contents(open_engine(source.database_url))
    assert [name for name, rows in before.items() if not rows] == []
    heard: dict[str, int] = {}
    counts = moving.move(source, source.database_url, empty_database.url, heard.__setitem__)
    assert counts == heard == {name: len(rows) for name, rows in before.items()}
    expected = contents(open_engine(source.database_url), of_home=home.identity(source.home))
    expected["usage_logs"] = [
        tuple(value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in row)
        for row in expected["usage_logs"]
    ]
    after = contents(open_engine(empty_database.url))
    for name in before:
        assert after[name] == sorted(expected[name], key=repr), name
    assert contents(open_engine(source.database_url)) == before


def test_what_was_moved_goes_on_in_postgres(source: Configuration, empty_database: Connected) -> None:
    moving.move(source, source.database_url, empty_database.url, told)
    moved = replace(source, database_url=empty_database.url)
    assert bootstrap(moved) is None, "the first run was done before"
    with open_control_plane(moved) as plane:
        project = plane.create_project("new")
        plane.create_key(project.id)
        with plane.database.reading() as connection:
            pairs = [pair for some in provider_keys.sealed_by_project(connection).values() for pair in some]
        assert keyring_of(moved).current.open(pairs[0][1], pairs[0][0].id) == b"sk-of-the-project-123456"
        assert len({line.at_ms for line in plane.audit()}) > 1
    # The recorder goes on where it was: nothing twice, and the call that was open is closed.
    name = home.identity(source.home)
    with usage_in(source.home, empty_database.url, name) as recorded:
        recorded.record()
        assert len(recorded.ids()) == 502
        assert recorded.query("SELECT request_id FROM usage_logs WHERE ended = 'aborted' AND error = 'aborted'") == [
            ("req_open",)
        ]
        assert recorded.rollups() == recorded.rollups_from_rows()


def test_a_move_that_fails_half_way_leaves_nothing_and_can_be_done_again(
    source: Configuration, empty_database: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(moving, "_verify_sums", lambda *_: (_ for _ in ()).throw(DatabaseUnusable("cut off")))
        with pytest.raises(DatabaseUnusable, match="cut off"):
            moving.move(source, source.database_url, empty_database.url, told)
    left = {name: rows for name, rows in contents(open_engine(empty_database.url)).items() if rows}
    assert [name for name, _ in left.pop("instance")] == ["installation"]
    assert left == {}
    assert moving.move(source, source.database_url, empty_database.url, told)["usage_logs"] == 501


def test_rows_that_do_not_arrive_are_noticed(
    source: Configuration, empty_database: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_copy_log", lambda *_: None)
    with pytest.raises(DatabaseUnusable, match="usage_logs has 501 rows and 0 arrived"):
        moving.move(source, source.database_url, empty_database.url, told)


def test_a_target_that_is_not_empty_is_refused(source: Configuration, postgres_database: Connected) -> None:
    postgres_database.execute("INSERT INTO watchllm.organizations VALUES ('org_1', 'somebody else', 1)")
    with pytest.raises(Invalid, match=r"not empty \(organizations\)") as caught:
        moving.move(source, source.database_url, postgres_database.url, told)
    assert PASSWORD not in str(caught.value)
    assert postgres_database.execute("SELECT name FROM watchllm.organizations") == [("somebody else",)]


def test_a_recorder_that_works_is_in_the_way(source: Configuration, empty_database: Connected) -> None:
    lock = lock_recorder(source.home / "journal")
    assert lock is not None
    try:
        with pytest.raises(Invalid, match="stop `watchllm up`"):
            moving.move(source, source.database_url, empty_database.url, told)
    finally:
        os.close(lock)


def test_another_secret_is_refused_before_anything_is_moved(source: Configuration, empty_database: Connected) -> None:
    other = replace(source, secret_key="another secret of enough characters")
    with pytest.raises(Invalid, match="nothing is sealed anew"):
        moving.move(other, source.database_url, empty_database.url, told)
    assert empty_database.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'watchllm'") == [(0,)]


@pytest.mark.parametrize(
    ("source_url", "target_url"),
    [
        ("postgresql://a:secret@h/a", "postgresql://a:secret@h/b"),
        ("sqlite:////nowhere/else.db", "postgresql://a:secret@h/b"),
        ("sqlite:////nowhere/else.db", "sqlite:////nowhere/other.db"),
    ],
)
def test_other_ways_are_refused(source: Configuration, source_url: str, target_url: str) -> None:
    with pytest.raises(ControlError) as caught:
        moving.move(source, source_url, target_url, told)
    assert "secret" not in str(caught.value)


def test_the_command_takes_the_target_from_the_environment_and_says_what_to_set(
    installation: Installation, empty_database: Connected
) -> None:
    project = installation.project("first")
    done = installation.run("db", "move", "--to", empty_database.url)
    assert f"{installation.home}/secret.key" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    again = installation.run("db", "move", "--to", empty_database.url, check=False)
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    secret = (installation.home / "secret.key").read_text().strip()
    installation.environment.update(WATCHLLM_DATABASE_URL=empty_database.url, WATCHLLM_SECRET_KEY=secret)
    assert project.id in installation.run("project", "list", "--json").stdout
    third = installation.run("db", "move", check=False)
    assert "not empty" in third.stderr
