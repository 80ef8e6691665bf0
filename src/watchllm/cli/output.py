"""How commands print: one JSON document with `--json`, else plain columns; everything else goes to stderr.

Columns are not fitted to the terminal: an id that was cut could not be pasted into the next command.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import typer

JSON = typer.Option(False, "--json", help="Print one JSON document.")


def print_json(data: Any) -> None:
    """Exactly one document on stdout, in UTF-8 whatever the locale: who reads JSON takes it for that."""
    typer.echo(msgspec.json.format(msgspec.json.encode(data), indent=2))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, nothing: str) -> None:
    """A line for each row under a heading; `nothing` goes to stderr when there is no row."""
    if not rows:
        typer.echo(nothing, err=True)
        return
    table = [[column.upper().replace("_", " ") for column in columns]]
    table += [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def warn(warnings: Sequence[str]) -> None:
    """Each on a line of stderr: the command has done what it was told."""
    for warning in warnings:
        typer.echo(f"watchllm: warning: {warning}", err=True)


def print_fields(fields: Mapping[str, Any]) -> None:
    """One `name  value` line for each field."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        typer.echo(f"{name.ljust(width)}  {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)
