"""`watchllm route` and `watchllm audit` as a script uses them."""

from typing import Any

import pytest

from tests.support.journal import event, journal_in, usage_in
from tests.support.product import Installation
from watchllm.domain.snapshot import RouteRecord
from watchllm.domain.usage_event import Attempt
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader


def published(installation: Installation, project: str) -> tuple[RouteRecord, ...]:
    reader = LmdbSnapshotReader(installation.home / "snapshot")
    record = reader.project(project)
    reader.close()
    assert record is not None
    return record.routes


def test_a_route_is_in_force_when_the_command_returns(installation: Installation) -> None:
    project = installation.project().id
    made = installation.run_json(
        "route", "set", "fast", "--project", project, "--to", "openai/gpt-4o-mini=3, groq/llama-3.1-8b-instant",
        "--fallback", "gpt-4o,sim/echo", "--retries", "2", "--try-timeout", "5", "--timeout", "20",
        "--hedge-after", "1.5",
    )  # fmt: skip
    expected = {
        "name": "fast",
        "to": [{"model": "openai/gpt-4o-mini", "weight": 3}, {"model": "groq/llama-3.1-8b-instant", "weight": 1}],
        "fallbacks": ["gpt-4o", "sim/echo"],
        "retries": 2,
        "try_timeout": 5.0,
        "timeout": 20.0,
        "hedge_after": 1.5,
        "project_id": project,
        "created_at": made["created_at"],
    }
    assert made == expected
    choices = (("openai/gpt-4o-mini", 3), ("groq/llama-3.1-8b-instant", 1))
    rule = RouteRecord("fast", choices, ("gpt-4o", "sim/echo"), 2, 5.0, 20.0, 1.5)
    assert published(installation, project) == (rule,)
    assert installation.run_json("route", "list") == installation.run_json("route", "list", "--project", project)
    assert installation.run_json("route", "list") == [expected]
    assert "openai/gpt-4o-mini=3,groq/llama-3.1-8b-instant=1" in installation.run("route", "list").stdout
    installation.run("route", "set", "fast", "--project", project, "--to", "gpt-4o")
    assert published(installation, project) == (RouteRecord("fast", (("gpt-4o", 1),)),)
    assert installation.run_json("route", "remove", "fast", "--project", project)["name"] == "fast"
    assert published(installation, project) == ()
    assert "no route yet" in installation.run("route", "list").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["set", "fast", "--to", "openai/x=heavy"], 2, "MODEL=WEIGHT"),
        (["set", "fast", "--to", "opnai/gpt-4o"], 2, "opnai/gpt-4o leads to no provider that is known"),
        (["set", "fast", "--to", ","], 2, "1 to 8 models"),
        (["set", "fast"], 2, "--to"),
        (["remove", "fast"], 1, "no route of this project is named 'fast'"),
    ],
)
def test_what_is_wrong_with_a_route_is_said(
    installation: Installation, arguments: list[str], code: int, said: str
) -> None:
    project = installation.project().id
    done = installation.run("route", *arguments, "--project", project, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_the_audit_shows_changes_and_uses_of_provider_keys_and_who_is_refused(installation: Installation) -> None:
    project, other = installation.project("mine").id, installation.project("other").id
    with installation.control_plane() as plane:
        refused, used = (plane.add_provider_key(project, "openai", f"sk-{name}") for name in ("first", "second"))
        unused = plane.add_provider_key(other, "groq", "gsk-third")
    journal = journal_in(installation.home)
    attempts = (
        Attempt("openai", "gpt", 401, 1000, 900, key_id=refused.id),
        Attempt("openai", "gpt", 200, 2000, 900, key_id=used.id),
    )
    journal.settled(event(project_id=project, at_ns=1_790_000_000_000_000_000, attempts=attempts))
    journal.close()
    with usage_in(installation.home) as usage:
        usage.record()
    states = {key["id"]: key for key in installation.run_json("provider-key", "list")}
    assert {name: key["state"] for name, key in states.items()} == {
        refused.id: "refused",
        used.id: "used",
        unused.id: "unused",
    }
    assert states[refused.id]["refused_at"] == states[refused.id]["last_used"] == "2026-09-21T14:13:20.001Z"
    assert (states[used.id]["refused_at"], states[unused.id]["last_used"]) == (None, None)
    printed = installation.run("provider-key", "list").stdout
    assert "refused by the provider at 2026-09-21T14:13:20.001Z" in printed

    lines = installation.run_json("audit", "list", "--project", project)
    uses = {line["object_id"]: line["details"] for line in lines if line["action"] == "provider_key.use"}
    assert {name: (use["uses"], use["refused"]) for name, use in uses.items()} == {refused.id: (1, 1), used.id: (1, 0)}
    changes = [line["action"] for line in lines if line["action"] != "provider_key.use"]
    assert sorted(changes) == ["key.create", "project.create", "provider_key.add", "provider_key.add"]
    assert all(other not in str(line) for line in lines)

    def listed(*options: str) -> list[Any]:
        return list(installation.run_json("audit", "list", *options))

    assert {line["action"] for line in listed("--since", "2026-09-01", "--limit", "1000")} >= {"provider_key.use"}
    assert listed("--since", "2200-01-01") == []
    assert len(listed("--limit", "3")) == 3
    assert "provider_key.use" in installation.run("audit", "list", "--limit", "1000").stdout
    assert installation.run("audit", "list", "--project", "prj_unknown", check=False).returncode == 1
