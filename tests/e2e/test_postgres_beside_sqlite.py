"""PostgreSQL is configured on a home that has an installation in a file: it is taken over, not begun anew beside it."""

import pytest

from tests.support.journal import usage_in
from tests.support.postgres import SECRET_KEY, Connected
from tests.support.product import Installation, Sim, upstream_environment
from tests.support.waiting import wait_for
from watchllm.stores import home


@pytest.fixture
def on_sqlite(installation: Installation) -> Installation:
    installation.project("made on SQLite")
    return installation


def test_the_secret_that_is_asked_for_is_the_one_of_the_home(
    on_sqlite: Installation, empty_database: Connected
) -> None:
    on_sqlite.environment["WATCHLLM_DATABASE_URL"] = empty_database.url
    for command in (["db", "move"], ["up"]):
        failed = on_sqlite.run(*command, check=False)
        assert failed.returncode == 2
        assert f"set what {on_sqlite.home / 'secret.key'} holds" in failed.stderr
        assert "openssl" not in failed.stderr


def test_an_empty_postgres_is_not_begun_on_before_the_move(on_sqlite: Installation, empty_database: Connected) -> None:
    on_sqlite.environment.update(
        WATCHLLM_DATABASE_URL=empty_database.url,
        WATCHLLM_SECRET_KEY=(on_sqlite.home / "secret.key").read_text().strip(),
    )
    for command in (["up", "--proxy-port", "0", "--console-port", "0"], ["db", "upgrade"], ["project", "list"]):
        failed = on_sqlite.run(*command, check=False)
        assert failed.returncode != 0
        assert "with 1 project in it" in failed.stderr
        assert "`watchllm db move` takes it over" in failed.stderr
    on_sqlite.run("db", "move")
    assert [project["name"] for project in on_sqlite.run_json("project", "list")] == ["made on SQLite"]
    up = on_sqlite.start_up("--no-console").process
    # Who stops it before all of it is up is told that it was not.
    up.wait_until(lambda: "proxy " in up.log(), "all of it to be up", within=30)
    assert up.stop() == 0


def test_a_file_with_nothing_in_it_is_no_reason(installation: Installation, empty_database: Connected) -> None:
    installation.run("db", "upgrade")
    installation.environment.update(WATCHLLM_DATABASE_URL=empty_database.url, WATCHLLM_SECRET_KEY=SECRET_KEY)
    installation.run("db", "upgrade")


def test_a_proxy_serves_during_the_move_and_all_usage_arrives(
    installation: Installation, sim: Sim, empty_database: Connected
) -> None:
    installation.environment.update(upstream_environment(sim.base_url))
    project = installation.project(settings={"semantic": "off", "monthly_requests": "100"})
    up = installation.start_up()
    answers = [up.chat(project.key, "with SQLite")]
    assert up.stop() == 0
    gateway = installation.start_proxy()
    answers.append(gateway.chat(project.key, "before the move"))
    installation.environment.update(
        WATCHLLM_DATABASE_URL=empty_database.url,
        WATCHLLM_SECRET_KEY=(installation.home / "secret.key").read_text().strip(),
    )
    installation.run("db", "move")
    answers.append(gateway.chat(project.key, "after it"))
    recorder = installation.start_recorder()
    installation.start_console()
    answers.append(gateway.chat(project.key, "recorded in PostgreSQL"))
    assert {answer.status for answer in answers} == {200}
    with usage_in(installation.home, empty_database.url, home.identity(installation.home)) as usage:
        wait_for(lambda: len(usage.ids()) == len(answers), "all rows")
        assert usage.ids() == [answer.header("x-request-id") for answer in answers]
        assert usage.rollups() == usage.rollups_from_rows()
    assert gateway.stop() == 0
    assert recorder.stop() == 0
