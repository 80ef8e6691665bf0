"""The embedded database: private, WAL, and writers of several processes wait for each other instead of failing."""

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from watchllm.control import installation, schema, tables
from watchllm.control.database import Database
from watchllm.control.errors import DatabaseUnusable
from watchllm.stores.sqlite.engine import open_engine

# What a test has added to what every database has.
ADDED = tables.instance.select().where(tables.instance.c.name != installation.INSTALLATION)


def test_a_second_engine_in_the_process_does_not_cut_the_first_one_off(tmp_path: Path) -> None:
    """Opening and closing the file beside SQLite would drop its locks, and another process remove the log in use."""
    url = f"sqlite:///{tmp_path}/watchllm.db"
    first = open_engine(url)
    with first.connect() as connection, connection.begin():
        connection.execute(text("CREATE TABLE t (x)"))
    open_engine(url).dispose()
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (1)'); c.commit()"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "watchllm.db")], check=True)
    with first.connect() as connection, connection.begin():
        assert connection.scalar(text("SELECT COUNT(*) FROM t")) == 1
    with first.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        connection.execute(text("INSERT INTO t VALUES (2)"))
    with sqlite3.connect(tmp_path / "watchllm.db") as other:
        assert other.execute("SELECT COUNT(*) FROM t").fetchone() == (2,)
    other.close()
    first.dispose()


def test_only_the_owner_can_read_it_and_it_is_in_wal_mode(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/new/watchllm.db")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        connection.execute(text("CREATE TABLE t (x)"))
        files = list((tmp_path / "new").iterdir())
        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="must be a file"):
        open_engine(url)


def test_a_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "watchllm.db").mkdir()
    with pytest.raises(DatabaseUnusable, match=r"watchllm\.db"):
        open_engine(f"sqlite:///{tmp_path}/watchllm.db")


def test_a_unit_of_work_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = Database(open_engine(f"sqlite:///{tmp_path}/watchllm.db"), lambda: 1)
    schema.upgrade(database.engine)

    def fails() -> None:
        with database.unit_of_work("tester") as work:
            work.connection.execute(insert(tables.instance).values(name="a", value=b"b"))
            work.publish("key", "key_1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert database.value("a") is None
    database.close()


def test_a_reader_sees_one_state_throughout(tmp_path: Path) -> None:
    database = Database(open_engine(f"sqlite:///{tmp_path}/watchllm.db"), lambda: 1)
    schema.upgrade(database.engine)
    with database.reading() as connection:
        assert connection.execute(ADDED).all() == []
        writer = threading.Thread(target=write, args=(database, "a"))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert connection.execute(ADDED).all() == []
    assert database.value("a") == b"x"
    database.close()


def write(database: Database, name: str) -> None:
    with database.unit_of_work("tester") as work:
        work.connection.execute(insert(tables.instance).values(name=name, value=b"x"))


def test_writers_of_several_processes_all_succeed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/watchllm.db"
    engine = open_engine(url)
    schema.upgrade(engine)
    code = (
        "import sys; from sqlalchemy import insert; from watchllm.control import installation, tables\n"
        "from watchllm.control.database import Database; from watchllm.stores.sqlite.engine import open_engine\n"
        "database = Database(open_engine(sys.argv[1]), lambda: 1)\n"
        "print('ready', flush=True); sys.stdin.read(1)\n"
        "for number in range(50):\n"
        "    with database.unit_of_work('tester') as work:\n"
        "        work.connection.execute(tables.instance.select()).all()\n"
        "        work.connection.execute(insert(tables.instance).values(name=sys.argv[2] + str(number), value=b'x'))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, url, name], stdin=-1, stdout=-1, stderr=-1) for name in "abc"
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    assert [child.communicate()[1] for child in children] == [b""] * 3
    with engine.connect() as connection:
        assert len(connection.execute(ADDED).all()) == 150
    engine.dispose()
