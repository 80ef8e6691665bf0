"""`watchllm audit list`: who changed what, and by hour what the projects' provider keys were used for."""

from typing import TYPE_CHECKING, Any

import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import control_plane
from watchllm.cli.usage import moment
from watchllm.domain.moments import timestamp

if TYPE_CHECKING:
    from watchllm.analytics.key_use_log import HourOfUses
    from watchllm.control.audit import AuditLine

app = typer.Typer(no_args_is_help=True, help="The audit log: changes, and uses of provider keys.")


@app.callback()
def group() -> None:
    """Without it, typer would make the only command the whole group."""


@app.command("list")
def list_(
    project: str | None = typer.Option(None, metavar="ID", help="Only what concerns this project."),
    since: str | None = typer.Option(None, metavar="TS|7d", help="From this time on."),
    limit: int = typer.Option(100, min=1, max=100_000, help="So many lines at most."),
    as_json: bool = JSON,
) -> None:
    """List changes and uses of provider keys, the newest first."""
    from watchllm.analytics import key_use_log

    since_ms = None if since is None else moment(since, "--since")
    with control_plane() as plane:
        changes = plane.audit(project_id=project, since_ms=since_ms, limit=limit)
        with plane.database.reporting() as connection:
            uses = key_use_log.hours(connection, project_id=project, since_ms=since_ms, limit=limit)
    dated = [(line.at_ms, _change(line)) for line in changes] + [(hour.last_ms, _use(hour)) for hour in uses]
    dated.sort(key=lambda pair: pair[0], reverse=True)
    lines = [line for _, line in dated[:limit]]
    if as_json:
        print_json(lines)
        return
    for line in lines:
        line["details"] = " ".join(f"{name}={value}" for name, value in line["details"].items() if value is not None)
    print_rows(lines, ("at", "actor", "action", "object_id", "details"), nothing="nothing in this time")


def _change(line: "AuditLine") -> dict[str, Any]:
    return {
        "at": timestamp(line.at_ms),
        "actor": line.actor,
        "action": line.action,
        "object_id": line.object_id,
        "details": line.details,
    }


def _use(hour: "HourOfUses") -> dict[str, Any]:
    return {
        "at": timestamp(hour.last_ms),
        "actor": "proxy",
        "action": "provider_key.use",
        "object_id": hour.provider_key_id,
        "details": {
            "project": hour.project_id,
            "hour": timestamp(hour.hour_ms),
            "uses": hour.uses,
            "refused": hour.refused,
            "refused_at": timestamp(hour.last_refused_ms),
        },
    }
