"""`watchllm usage`: export, the rows of usage_logs as CSV, JSON lines or Parquet; spent, what counts against limits."""

import os
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watchllm.cli.output import JSON, print_fields, print_json, warn
from watchllm.cli.session import configuration

if TYPE_CHECKING:
    from watchllm.analytics.formats import Pages

app = typer.Typer(no_args_is_help=True, help="Usage: what was requested, and what it cost.")

_MOST_DIGITS = 9  # More is no time that a database can hold.
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


class Format(StrEnum):
    """What can be written."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


def moment(text: str, option: str) -> int:
    """Epoch milliseconds of `7d` (that long ago), a date or a time in ISO 8601 (UTC unless it says otherwise).

    Raises BadParameter, which names the `option`.
    """
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS_MS and number.isdecimal() and len(number) <= _MOST_DIGITS:
        return time.time_ns() // 1_000_000 - int(number) * _UNITS_MS[unit]
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        expected = "expected 7d, 12h, 30m, a date such as 2026-01-31, or an ISO 8601 time"
        raise typer.BadParameter(f"{text!r}: {expected}", param_hint=option) from None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


@app.command()
def export(
    kind: Annotated[Format, typer.Option("--format", help="csv, jsonl or parquet.")],
    since: Annotated[str | None, typer.Option(metavar="TS|7d", help="From this time on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TS|1d", help="Before this time.")] = None,
    project: Annotated[str | None, typer.Option(metavar="ID", help="Only this project's.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Instead of stdout.")] = None,
) -> None:
    """Write one row for each request, oldest first."""
    from watchllm.analytics.export import rows
    from watchllm.analytics.formats import FormatUnavailable, write
    from watchllm.compose.database import bring_up_to_date, open_database
    from watchllm.control import projects

    since_ms = None if since is None else moment(since, "--since")
    until_ms = None if until is None else moment(until, "--until")
    if kind is Format.parquet and output is None and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is not for a terminal; name a file", param_hint="--output")
    settings = configuration()
    with closing(open_database(settings)) as database:
        bring_up_to_date(settings, database)
        if project is not None:
            with database.reading() as connection:
                projects.get(connection, project)
        pages = rows(database.reporting, since_ms=since_ms, until_ms=until_ms, project_id=project)
        try:
            if output is None:
                count = write(kind.value, pages, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                count = _write_file(kind.value, pages, output)
        except FormatUnavailable as error:
            typer.echo(f"watchllm: {error}", err=True)
            raise typer.Exit(1) from None
        except BrokenPipeError:
            # Whoever reads has seen enough (`| head`); the interpreter's own flush at exit must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            typer.echo(f"watchllm: cannot write: {error.strerror or error}", err=True)
            raise typer.Exit(1) from None
    typer.echo(f"{count} rows", err=True)


@app.command()
def spent(
    subject: Annotated[str, typer.Argument(metavar="ID", help="A key, a project or an organization.")],
    as_json: bool = JSON,
) -> None:
    """Show what counts against the quota and the budgets of a key, a project or an organization."""
    from watchllm.analytics.spent import described, passed_alerts
    from watchllm.analytics.spent import spent as read
    from watchllm.compose.database import bring_up_to_date, open_database
    from watchllm.control import alerting
    from watchllm.control.errors import NotFound
    from watchllm.control.plans import plans

    if subject.partition("_")[0] not in ("key", "prj", "org"):
        raise NotFound(f"{subject!r} is no id of a key (key_…), a project (prj_…) or an organization (org_…)")
    settings = configuration()
    with closing(open_database(settings)) as database:
        bring_up_to_date(settings, database)
        with database.reading() as connection:
            limits = alerting.limits_of(connection, subject, lambda: plans(settings.home))
            found = read(connection, subject, datetime.now(UTC))
    data = described(subject, found, limits)
    warn(list(passed_alerts(limits, found).values()))
    if as_json:
        print_json(data)
    else:
        print_fields(data)


def _write_file(kind: str, pages: "Pages", output: Path) -> int:
    """Under a name of its own until it is whole: nobody takes half an export for one."""
    from watchllm.analytics.formats import write

    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            count = write(kind, pages, file)
        draft.rename(output)
    finally:
        draft.unlink(missing_ok=True)
    return count
