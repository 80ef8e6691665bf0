"""Statements that take their rows as arrays, one a column, and merge them with the rows that are there."""

from collections.abc import Sequence
from typing import Any

from watchllm.stores.postgres.partitions import RawConnection


def statement(table: str, columns: dict[str, str], conflict: str) -> str:
    """A statement whose parameters are the columns' values, an array each; `columns` by name, with their types.
    What is there already is called `kept`."""
    names = ", ".join(f'"{name}"' for name in columns)
    arrays = ", ".join(f"%s::{kind}[]" for kind in columns.values())
    into = f"INSERT INTO watchllm.{table} AS kept ({names})"
    return f"{into} SELECT * FROM unnest({arrays}) ON CONFLICT {conflict}"  # noqa: S608 (names of our own)


def merge(connection: RawConnection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run a `statement` with these rows, if any."""
    if rows:
        connection.execute(into, [list(column) for column in zip(*rows, strict=True)])
