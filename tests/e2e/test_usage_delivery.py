"""From a request to its row, its export and the terminal, through the processes that users run."""

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin import AdminConnection, admin_get, dependency_of
from tests.support.journal import Usage, usage_in
from tests.support.processes import BackgroundProcess
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import request_bytes
from tests.support.waiting import wait_for
from watchllm.journal.status import RecorderStatus, recorder_status, write_status


@pytest.fixture
def home(installation: Installation, shared_sim: Sim) -> Installation:
    installation.environment.update(upstream_environment(shared_sim.base_url))
    return installation


@pytest.fixture
def proxy(home: Installation) -> tuple[Gateway, Project]:
    project = home.project()
    return home.start_proxy(), project


@pytest.fixture
def usage(home: Installation) -> Iterator[Usage]:
    home.home.mkdir(exist_ok=True)
    with usage_in(home.home) as usage:
        yield usage


def recorder(home: Installation) -> BackgroundProcess:
    process = home._start("recorder")
    process.wait_until(lambda: (home.home / "journal/recorder.json").exists(), "its first status")
    return process


def test_each_kind_of_request_is_one_row(home: Installation, usage: Usage, proxy: tuple[Gateway, Project]) -> None:
    gateway, project = proxy
    answers = [
        gateway.chat(project.key, "Hello"),
        gateway.chat(project.key, "Hello"),
        gateway.chat(project.key, "Hello", stream=True),
        gateway.chat(project.key, "other", headers={"X-WatchLLM-Cache": "off", "X-WatchLLM-Tags": "team=a"}),
        gateway.post("/v1/chat/completions", project.key, b"not json"),
        gateway.chat("lgw_proj_" + "0" * 40, "unknown key"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 400, 401]
    process = recorder(home)
    wait_for(lambda: len(usage.ids()) == 5, "five rows")
    rows = usage.query(
        "SELECT request_id, status, cache, ended, tags, attempts IS NOT NULL, cost_nanos, saved_nanos "
        "FROM usage_logs ORDER BY id"
    )
    assert [row[0] for row in rows] == [answer.header("x-request-id") for answer in answers[:5]]
    assert [row[1:6] for row in rows] == [
        (200, "MISS", "complete", None, 1),
        (200, "HIT", "complete", None, 0),
        (200, "HIT", "complete", None, 0),
        (200, "BYPASS", "complete", '{"team":"a"}', 1),
        (400, "", "error", None, 0),
    ]
    cost = rows[0][6]
    assert cost > 0
    assert [row[6] for row in rows[1:3]] == [0, 0]
    assert [row[7] for row in rows[1:3]] == [cost, cost]
    assert usage.rollups() == usage.rollups_from_rows()
    assert process.stop() == 0


def test_readiness_tells_of_the_recorder_and_does_not_depend_on_it(
    home: Installation, proxy: tuple[Gateway, Project]
) -> None:
    gateway, _ = proxy
    answer = gateway.get("/health/ready")
    assert answer.status == 200
    assert "not running" in (dependency_of(gateway, "recorder") or "")
    assert answer.json()["dependencies"]["recorder"] == "degraded"
    assert answer.json()["recorder_lag_seconds"] is None
    process = recorder(home)
    state = gateway.get("/health/ready").json()
    assert state["dependencies"]["recorder"] == "ok"
    assert state["recorder_lag_seconds"] < 5
    process.kill()
    wait_for(lambda: "not running" in (dependency_of(gateway, "recorder") or ""), "its end")


def test_a_new_recorder_does_not_repeat_what_the_one_before_said(home: Installation) -> None:
    home.project()
    folder = home.home / "journal"
    folder.mkdir(exist_ok=True)
    write_status(folder, RecorderStatus(pid=1, at_ms=0, problem="Redis was away"))
    process = home._start("recorder")
    told = wait_for(lambda: recorder_status(folder), "its first word", every=0.001)
    assert told is not None
    assert (told.pid, told.problem) == (process.pid, None)


def test_a_locked_database_delays_rows_and_no_answer(
    home: Installation, usage: Usage, proxy: tuple[Gateway, Project]
) -> None:
    gateway, project = proxy
    process = recorder(home)
    locker = sqlite3.connect(usage.database, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert gateway.chat(project.key, "while it is locked").status == 200
    wait_for(lambda: "locked" in (dependency_of(gateway, "recorder") or ""), "the reason")
    assert gateway.get("/health/ready").status == 200
    locker.execute("ROLLBACK")
    locker.close()
    wait_for(lambda: len(usage.ids()) == 1, "the row")
    wait_for(lambda: gateway.get("/health/ready").json()["dependencies"]["recorder"] == "ok", "recovery")
    assert "recording again" in process.log()


def test_a_ledger_that_is_damaged_is_told_of_and_holds_the_recorder_up_until_it_is_removed(
    home: Installation, usage: Usage, proxy: tuple[Gateway, Project]
) -> None:
    gateway, project = proxy
    folder = home.home / "ledger"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"damaged" * 10_000)
    process = recorder(home)
    assert gateway.chat(project.key, "Hello").status == 200
    wait_for(lambda: "Remove this folder" in (dependency_of(gateway, "recorder") or ""), "advice")
    shutil.rmtree(folder)
    wait_for(lambda: len(usage.ids()) == 1, "the row")
    wait_for(lambda: "recording again" in process.log(), "the good news")


@pytest.mark.parametrize("policy", ["refuse", "serve-unmetered"])
def test_a_full_journal_does_what_the_policy_says(home: Installation, sim: Sim, policy: str) -> None:
    project = home.project()
    environment = {"WATCHLLM_JOURNAL_MAX_BYTES": "128KiB", "WATCHLLM_JOURNAL_FULL": policy}
    gateway = home.start_proxy(environment=environment)
    refused = None
    for number in range(900):
        answer = gateway.chat(project.key, f"question {number % 10}")
        if answer.status != 200:
            refused = answer
            break
    ready = gateway.get("/health/ready")
    assert str(home.home) in (dependency_of(gateway, "journal") or "")
    assert "watchllm doctor" in ready.json()["reasons"]
    assert str(home.home) not in ready.body.decode()
    assert ready.json()["dependencies"]["journal"] == ("failed" if policy == "refuse" else "degraded")
    if policy == "serve-unmetered":
        assert refused is None
        assert ready.status == 200
        return
    assert refused is not None
    assert refused.status == 503
    assert refused.json()["error"]["code"] == "overloaded"
    assert "record usage" in refused.json()["error"]["message"]
    assert str(home.home) not in refused.body.decode()
    assert refused.header("Retry-After")
    assert ready.status == 503
    calls = sim.calls()
    assert gateway.chat(project.key, "something new").status == 503
    assert (
        gateway.post("/v1/embeddings", project.key, {"model": "text-embedding-3-small", "input": "new"}).status == 503
    )
    assert gateway.post("/v1/moderations", project.key, {"input": "new"}).status == 503
    assert sim.calls() == calls, "refused before the call upstream"
    recorder(home)
    wait_for(lambda: gateway.chat(project.key, "something new").status == 200, "room again")
    wait_for(lambda: gateway.get("/health/ready").status == 200, "being ready again")


def test_a_removed_journal_folder_loses_nothing(
    home: Installation, usage: Usage, proxy: tuple[Gateway, Project]
) -> None:
    gateway, project = proxy
    ids = [gateway.chat(project.key, f"question {number}").header("x-request-id") for number in range(30)]
    (home.home / "journal").rename(home.home / "gone")
    shutil.rmtree(home.home / "gone")
    ids += [gateway.chat(project.key, f"question {number}").header("x-request-id") for number in range(30)]
    wait_for(lambda: list((home.home / "journal").glob("*.seg")), "the folder", within=3)
    recorder(home)
    wait_for(lambda: len(usage.ids()) == 60, "all rows")
    assert usage.ids() == ids


def test_one_recorder_works_and_another_stands_by(
    home: Installation, usage: Usage, proxy: tuple[Gateway, Project]
) -> None:
    gateway, project = proxy
    first = recorder(home)
    second = home._start("recorder")
    second.wait_until(lambda: "standing by" in second.log_path.read_text(), "standing by")
    first.kill()
    gateway.chat(project.key, "who records this?")
    wait_for(lambda: len(usage.ids()) == 1, "the second one's row")
    assert second.stop() == 0


def test_a_recorder_ends_with_what_was_there_applied(
    home: Installation, usage: Usage, proxy: tuple[Gateway, Project]
) -> None:
    gateway, project = proxy
    process = recorder(home)
    for number in range(50):
        gateway.chat(project.key, f"question {number}")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert len(usage.ids()) == 50


def test_up_records_and_its_recorder_is_started_again(home: Installation, usage: Usage) -> None:
    gateway = home.start_up("--no-console")
    project = home.project()
    gateway.chat(project.key, "Hello")
    wait_for(lambda: len(usage.ids()) == 1, "the row")
    # At the first row perhaps not yet.
    told = home.home / "journal/recorder.json"
    wait_for(told.exists, "the recorder to tell of itself")
    os.kill(json.loads(told.read_text())["pid"], signal.SIGKILL)
    gateway.chat(project.key, "Hello again")
    wait_for(lambda: len(usage.ids()) == 2, "the row after the recorder's death")


@pytest.fixture
def recorded(
    home: Installation, usage: Usage, proxy: tuple[Gateway, Project]
) -> tuple[Installation, Project, list[str]]:
    gateway, project = proxy
    headers = {"X-WatchLLM-User": "=cmd()", "X-WatchLLM-Tags": 'quote="x",plain=1'}
    ids = [gateway.chat(project.key, f"question {n}", headers=headers).header("x-request-id") for n in range(12)]
    other = home.project("other")
    gateway.chat(other.key, "of another project")
    recorder(home)
    wait_for(lambda: len(usage.ids()) == 13, "the rows")
    return home, project, ids


def test_usage_is_exported_in_every_format(recorded: tuple[Installation, Project, list[str]], tmp_path: Path) -> None:
    home, project, ids = recorded
    as_csv = home.run("usage", "export", "--format", "csv", "--project", project.id)
    assert as_csv.stderr.strip().endswith("12 rows")
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [row["request_id"] for row in rows] == ids
    assert {row["user_id"] for row in rows} == {"'=cmd()"}, "a spreadsheet must not run what a client sent"
    lines = home.run("usage", "export", "--format", "jsonl", "--project", project.id).stdout.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ids
    assert json.loads(lines[0])["tags"] == {"quote": '"x"', "plain": "1"}
    assert json.loads(lines[0])["user_id"] == "=cmd()"
    file = tmp_path / "usage.parquet"
    home.run("usage", "export", "--format", "parquet", "--project", project.id, "--output", str(file))
    parquet = pytest.importorskip("pyarrow.parquet").read_table(file)
    assert parquet.column("request_id").to_pylist() == ids
    assert parquet.column("cost_nanos").to_pylist() == [int(row["cost_nanos"]) for row in rows]


def test_an_export_is_bounded_by_time(recorded: tuple[Installation, Project, list[str]]) -> None:
    home, _, _ = recorded

    def count(*options: str) -> int:
        return len(home.run("usage", "export", "--format", "jsonl", *options).stdout.splitlines())

    assert count() == 13
    assert count("--since", "1h") == 13
    assert count("--until", "1h") == 0
    assert count("--since", "2020-01-01", "--until", "2021-01-01T00:00:00+02:00") == 0
    for text in ("yesterday", f"{10**20}w"):
        wrong = home.run("usage", "export", "--format", "jsonl", "--since", text, check=False)
        assert wrong.returncode == 2
        assert "--since" in wrong.stderr


def test_live_requests_are_shown_as_they_end(home: Installation, proxy: tuple[Gateway, Project]) -> None:
    gateway, project = proxy
    tail = home._start("logs", "tail", "--json", "--project", project.id)
    tail.wait_until(lambda: "listening" in tail.log(), "listening")
    gateway.chat(home.project("other").key, "of another project")
    first = gateway.chat(project.key, "Hello").header("x-request-id")
    tail.wait_until(lambda: first in tail.log(), "the request")
    shown = [json.loads(line) for line in tail.log().splitlines() if line.startswith("{")]
    assert [(line["request_id"], line["cache"], line["status"]) for line in shown] == [(first, "MISS", 200)]
    gateway.stop()
    again = home.start_proxy()
    second = again.chat(project.key, "Hello").header("x-request-id")

    def follows() -> bool:
        again.chat(project.key, "Hello")
        return tail.log().count("listening to proxy") == 2 and tail.log().count("request_id") > 1

    tail.wait_until(follows, "the proxy that was started later")
    assert second
    tail.signal(signal.SIGINT)
    assert tail.wait() == 0


def test_a_live_request_is_the_document_that_its_export_will_be(home: Installation, usage: Usage) -> None:
    home.environment["WATCHLLM_REGION"] = "eu-1"
    project = home.project()
    gateway = home.start_proxy()
    tail = home._start("logs", "tail", "--json")
    tail.wait_until(lambda: "listening" in tail.log(), "listening")
    gateway.chat(project.key, "Hello", headers={"X-WatchLLM-Tags": "team=a"})
    gateway.chat(project.key, "Hello")
    gateway.post("/v1/chat/completions", project.key, b"not json")
    tail.wait_until(lambda: tail.log().count('"at":') == 3, "the requests")
    recorder(home)
    wait_for(lambda: len(usage.ids()) == 3, "the rows")
    exported = home.run("usage", "export", "--format", "jsonl").stdout.splitlines()
    assert [line for line in tail.log().splitlines() if line.startswith("{")] == exported
    assert json.loads(exported[0])["tags"] == {"team": "a"}
    assert json.loads(exported[0])["region"] == "eu-1"


def test_only_what_could_have_had_a_cost_is_unpriced(home: Installation) -> None:
    project = home.project()
    gateway = home.start_proxy()
    tail = home._start("logs", "tail")
    tail.wait_until(lambda: "listening" in tail.log(), "listening")
    answers = [
        gateway.post("/v1/chat/completions", project.key, b"not json"),
        gateway.chat(project.key, "Hello"),
        gateway.chat(project.key, "Hello", model="openai/nobody-knows-its-price"),
    ]
    ids = [answer.header("x-request-id") or "none" for answer in answers]
    tail.wait_until(lambda: all(request_id in tail.log() for request_id in ids), "the requests")
    lines = [next(line for line in tail.log().splitlines() if request_id in line) for request_id in ids]
    assert ["unpriced" in line for line in lines] == [False, False, True]
    assert "$" in lines[1]


def test_a_tail_waits_for_a_home_that_does_not_exist_yet(home: Installation) -> None:
    home.environment["WATCHLLM_HOME"] = str(home.home / "later")
    tail = home._start("logs", "tail")
    tail.wait_until(lambda: "waiting for requests" in tail.log(), "waiting")
    assert not (home.home / "later").exists()
    gateway = Installation(home.home / "later", home.environment).start_up("--no-console")
    tail.wait_until(lambda: "listening to proxy" in tail.log(), "the proxy that was started later")
    assert "Traceback" not in tail.log()
    gateway.stop()


def test_a_listener_that_does_not_read_misses_requests_and_is_told(proxy: tuple[Gateway, Project]) -> None:
    gateway, project = proxy
    with AdminConnection(gateway) as slow:
        slow.send(request_bytes("/events"))
        stop = threading.Event()
        for number in range(3000):
            gateway.chat(project.key, f"question {number % 5}", headers={"X-WatchLLM-User": "u" * 500})
            if number % 500 == 499 and b"watchllm_requests_total" in admin_get(gateway, "/metrics").body:
                continue
        stop.set()
        received = b""
        slow._socket.settimeout(5)
        while b"event: missed" not in received[-200_000:]:
            received += slow._socket.recv(1 << 20)
    assert b'{"missed":' in received
