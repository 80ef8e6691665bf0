"""The engine over PostgreSQL: URLs as people paste them, nothing secret in a message, and no wait without end."""

import threading
from types import SimpleNamespace

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from tests.support.postgres import OWNER, PASSWORD, Connected, Postgres
from tests.support.waiting import wait_for
from watchllm.control import schema, tables
from watchllm.control.database import Database
from watchllm.control.errors import DatabaseUnusable
from watchllm.stores.postgres.engine import open_engine

SECRET = "pass/w?rd-9876"


def database(url: str, **options: float | None) -> Database:
    return Database(open_engine(url, **options), lambda: 1)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes_and_other_programs_parameters_are_taken(postgres_database: Connected, scheme: str) -> None:
    url = postgres_database.url.replace("postgresql", scheme) + "?pgbouncer=true&sslmode=disable&connection_limit=1"
    opened = database(url)
    assert opened.engine.url.query == {"sslmode": "disable"}
    assert opened.value("nothing") is None
    opened.close()


def test_what_the_url_says_of_tls_is_kept(postgres_database: Connected) -> None:
    opened = database(postgres_database.url + "?sslmode=require")
    with pytest.raises(DatabaseUnusable, match="does not support SSL"):
        opened.value("nothing")
    opened.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://watchllm:{SECRET}@127.0.0.1:notaport/db",
        f"postgresql://watchllm:{SECRET}@127.0.0.1:1",
        "postgresql://watchllm:pass-w-rd-9876@127.0.0.1:1/db?sslpassword=pass-w-rd-9876",
        "postgresql://watchllm:pass-w-rd-9876@127.0.0.1:1/db?unknown_option=pass-w-rd-9876",
    ],
)
def test_no_message_holds_a_secret(url: str) -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        database(url).value("nothing")
    shown: BaseException | None = caught.value
    assert "9876" not in str(shown)
    assert "9876" not in repr(shown)


@pytest.mark.parametrize("password", ["a@b-9876", "a@b/c#d-9876"])
def test_a_mark_in_a_password_is_told_of(password: str) -> None:
    with pytest.raises(DatabaseUnusable, match="percent-encoded there: / is %2F, # %23") as caught:
        database(f"postgresql://watchllm:{password}@127.0.0.1:1/db")
    assert "9876" not in str(caught.value)


def test_a_role_without_rights_is_told_what_it_lacks(own_postgres: Postgres) -> None:
    name = own_postgres.database().rpartition("/")[2]
    own_postgres.execute("postgres", "CREATE ROLE stranger LOGIN")
    opened = database(own_postgres.url(name, user="stranger"))
    for use in (lambda: schema.is_current(opened.engine), lambda: opened.value("nothing")):
        with pytest.raises(
            DatabaseUnusable, match="the role lacks rights: connect as the owner of the schema"
        ) as caught:
            use()
        assert "LINE" not in str(caught.value)
        assert "doctor" not in str(caught.value)
    opened.close()


def test_a_refused_password_is_not_told(own_postgres: Postgres) -> None:
    url = own_postgres.database()
    hba = own_postgres.execute("postgres", "SHOW hba_file")[0][0]
    with open(hba, "w", encoding="ascii") as file:
        file.write("host all postgres all trust\nhost all all all scram-sha-256\n")
    own_postgres.execute("postgres", f"ALTER ROLE {OWNER} PASSWORD 'another'", "SELECT pg_reload_conf()")

    def refused() -> str:
        with pytest.raises(DatabaseUnusable) as caught:
            database(url).value("nothing")
        return str(caught.value)

    assert "password authentication failed" in refused()
    assert PASSWORD not in refused()


def test_those_who_write_wait_for_each_other_and_see_what_the_first_wrote(postgres_database: Connected) -> None:
    opened = database(postgres_database.url)
    seen: list[int] = []

    def second() -> None:
        with opened.unit_of_work("second") as work:
            seen.append(work.connection.scalar(select(func.count()).select_from(tables.organizations)) or 0)

    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with opened.unit_of_work("first") as work:
        thread = threading.Thread(target=second)
        thread.start()
        wait_for(lambda: postgres_database.execute(waiting) == [(1,)], "the second to wait")
        work.connection.execute(insert(tables.organizations).values(id="org_1", name="x", created_ms=1))
    thread.join()
    assert seen == [1]
    opened.close()


def test_who_writes_gives_up_in_time_and_who_upgrades_has_patience(
    empty_database: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchllm.stores.postgres.engine._LOCK_WAIT", "100ms")
    opened = database(empty_database.url, answer_seconds=None)
    upgraded: list[bool] = []
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with opened.unit_of_work("first"):
        thread = threading.Thread(target=lambda: upgraded.append(schema.upgrade(opened.engine)))
        thread.start()
        wait_for(lambda: empty_database.execute(waiting) == [(1,)], "the upgrade to wait")
        with pytest.raises(DatabaseUnusable, match="lock timeout"), opened.unit_of_work("second"):
            pytest.fail("it wrote beside the first")
        assert upgraded == []
    thread.join()
    assert upgraded == [True]
    opened.close()


def test_nothing_of_a_session_is_left_behind_for_the_next_one_of_a_pooler(postgres_database: Connected) -> None:
    url = postgres_database.server.pooled(postgres_database.url)
    several = [database(url) for _ in range(3)]
    for _ in range(10):
        for opened in several:
            assert opened.value("nothing") is None
            with opened.unit_of_work("somebody") as work:
                assert work.connection.scalar(text("SHOW lock_timeout")) == "15s"
            with opened.engine.connect() as connection:
                assert connection.scalar(text("SHOW lock_timeout")) == "0"
                assert connection.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0
    for opened in several:
        opened.close()


def test_who_reads_sees_one_state_throughout_and_cannot_write(postgres_database: Connected) -> None:
    opened = database(postgres_database.url)
    count = select(func.count()).select_from(tables.organizations)
    with opened.reading() as connection:
        assert connection.scalar(count) == 0
        with opened.unit_of_work("other") as work:
            work.connection.execute(insert(tables.organizations).values(id="org_1", name="x", created_ms=1))
        assert connection.scalar(count) == 0
    with pytest.raises(DatabaseUnusable, match="read-only"), opened.reading() as connection:
        connection.execute(insert(tables.organizations).values(id="org_2", name="x", created_ms=1))
    opened.close()


def test_a_server_that_went_and_came_again_is_used_again(own_postgres: Postgres) -> None:
    opened = database(own_postgres.database())
    assert opened.value("nothing") is None
    own_postgres.stop(at_once=True)
    with pytest.raises(DatabaseUnusable):
        opened.value("nothing")
    own_postgres.start()
    assert opened.value("nothing") is None
    # And when nobody asked meanwhile.
    own_postgres.stop()
    own_postgres.start()
    assert opened.value("nothing") is None
    opened.close()


def test_a_server_that_stands_still_is_an_error_in_time(own_postgres: Postgres) -> None:
    opened = database(own_postgres.database(), answer_seconds=2)
    assert opened.value("nothing") is None
    own_postgres.pause()
    with pytest.raises(DatabaseUnusable, match=r"no answer from the server within 2 s|timeout expired"):
        opened.value("nothing")
    own_postgres.resume()
    assert opened.value("nothing") is None
    opened.close()


def test_a_statement_may_take_its_time_where_nothing_bounds_it(postgres_database: Connected) -> None:
    patient, hasty = (open_engine(postgres_database.url, answer_seconds=bound) for bound in (None, 1))
    slow = text("SELECT pg_sleep(1.5)")
    with patient.connect() as connection:
        connection.execute(slow)
    with hasty.connect() as connection, pytest.raises(DBAPIError, match="no answer"):
        connection.execute(slow)
    patient.dispose()
    hasty.dispose()


def test_what_only_informs_is_read_from_the_replica_and_without_it_from_the_database(own_postgres: Postgres) -> None:
    primary, replica = own_postgres.database(), own_postgres.database()
    own_postgres.execute(
        replica.rpartition("/")[2],
        "INSERT INTO watchllm.organizations VALUES ('org_1', 'of the replica', 1)",
        user=OWNER,
    )
    clock = SimpleNamespace(now=1)
    opened = Database(open_engine(primary), lambda: clock.now, replica=open_engine(replica))

    def seen() -> list[str]:
        with opened.reporting() as connection:
            return [name for (name,) in connection.execute(select(tables.organizations.c.name))]

    assert seen() == ["of the replica"]
    name = replica.rpartition("/")[2]
    own_postgres.execute("postgres", f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    own_postgres.execute("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert seen() == []
    own_postgres.execute("postgres", f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    assert seen() == [], "nobody waits again and again for a replica that is away"
    clock.now += 30_000
    assert seen() == ["of the replica"]
    opened.close()
