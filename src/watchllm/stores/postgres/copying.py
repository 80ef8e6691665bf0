"""Rows of usage in the text form that COPY takes, made by the thousand: one `%` a row and no call a field.

A row that the quick form could misrepresent (one with a tab, a backslash, a text that says None) is spelled out.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from watchllm.domain.usage_log import COLUMNS

STATEMENT = f"COPY watchllm.usage_logs ({', '.join(COLUMNS)}) FROM STDIN WITH (FORMAT text, NULL 'None')"
UNSTORABLE = "\ufffd"
"""Stands for the character 0, which PostgreSQL's texts cannot hold."""

_BLOCK = 500
_FORM = "\t".join(["%s"] * len(COLUMNS))
_TABS = len(COLUMNS) - 1
_SPELLED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": UNSTORABLE})


def blocks(rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """The rows, each the values of `usage_log.COLUMNS`, in pieces to be written one after the other."""
    lines: list[str] = []
    for row in rows:
        lines.append(_line(row))
        if len(lines) == _BLOCK:
            yield _encoded(lines)
            lines = []
    if lines:
        yield _encoded(lines)


def _line(row: tuple[Any, ...]) -> str:
    line = _FORM % row
    if line.count("\t") != _TABS or "\\" in line or "\n" in line or "\r" in line or "\0" in line or "None" in row:
        return "\t".join(map(_field, row))
    return line


def _field(value: Any) -> str:
    if not isinstance(value, str):
        return str(value)
    # In a text whose letters are escaped nobody sees the word that stands for NULL.
    return "N\\one" if value == "None" else value.translate(_SPELLED)


def _encoded(lines: list[str]) -> bytes:
    lines.append("")
    return "\n".join(lines).encode()
