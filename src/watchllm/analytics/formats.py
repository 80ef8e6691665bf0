"""What usage is exported as: CSV, JSON lines and Parquet, written page by page.

Amounts are nano-dollars, times epoch milliseconds, as in the database; `at` adds the time in ISO 8601. `price`,
`tags` and `attempts` are objects in JSON lines, and JSON texts elsewhere.
"""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from watchllm.domain.usage_log import COLUMNS

FORMATS = ("csv", "jsonl", "parquet")
FIELDS = ("at", *COLUMNS)

_JSON_COLUMNS = ("price", "tags", "attempts")
_FRACTIONS = ("similarity", "confidence")
_FLAGS = ("streamed", "estimated", "hedged")
_AT_MS = COLUMNS.index("at_ms")
_FIRST_BAD = ("=", "+", "-", "@", "\t", "\r")
# Texts that come from clients; a spreadsheet would take some of them for formulas.
_CLIENT_TEXTS = tuple(COLUMNS.index(name) for name in ("model", "user_id", "session_id"))


class FormatUnavailable(Exception):
    """What the format needs is not installed; the message names the command that installs it."""


Pages = Iterable[list[tuple[Any, ...]]]


def document(row: Sequence[Any]) -> dict[str, Any]:
    """One row, the values of `usage_log.COLUMNS`, as the document that is its line in JSON lines."""
    fields = {"at": _iso(row[_AT_MS]), **dict(zip(COLUMNS, row, strict=True))}
    for name in _JSON_COLUMNS:
        if fields[name] is not None:
            fields[name] = msgspec.Raw(fields[name].encode())
    return fields


def write(kind: str, pages: Pages, output: BinaryIO) -> int:
    """Write all rows to `output`; how many. Raises FormatUnavailable, before anything was read or written."""
    return {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[kind](pages, output)


def _write_csv(pages: Pages, output: BinaryIO) -> int:
    count = 0
    output.write((",".join(FIELDS) + "\r\n").encode())
    for page in pages:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        for row in page:
            values = list(row)
            for index in _CLIENT_TEXTS:
                value = values[index]
                if value and value.startswith(_FIRST_BAD):
                    values[index] = "'" + value
            writer.writerow((_iso(row[_AT_MS]), *("" if value is None else _plain(value) for value in values)))
        output.write(text.getvalue().encode())
        count += len(page)
    return count


def _write_jsonl(pages: Pages, output: BinaryIO) -> int:
    count = 0
    encode = msgspec.json.Encoder().encode
    for page in pages:
        output.write(b"".join(encode(document(row)) + b"\n" for row in page))
        count += len(page)
    return count


def _write_parquet(pages: Pages, output: BinaryIO) -> int:
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
        import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        # By the interpreter that runs this: a `pip` on the PATH is seldom that of a checkout's .venv.
        raise FormatUnavailable(f"Parquet needs pyarrow: {sys.executable} -m pip install 'pyarrow>=18'") from None
    texts = {"request_id", "project_id", "key_id", "endpoint", "provider", "model", "region", "cache", "ended", "error"}
    texts |= {"price", "user_id", "session_id", "tags", "upstream_request_id", "attempts", "provider_key_id"}
    texts |= {"semantic", "semantic_reason"}

    def kind(name: str) -> Any:
        if name == "at":
            return pyarrow.timestamp("ms", tz="UTC")
        if name in _FLAGS:
            return pyarrow.bool_()
        if name in _FRACTIONS:
            return pyarrow.float64()
        return pyarrow.string() if name in texts else pyarrow.int64()

    schema = pyarrow.schema([(name, kind(name)) for name in FIELDS])
    count = 0
    with pyarrow.parquet.ParquetWriter(output, schema, compression="zstd") as writer:
        for page in pages:
            columns = [[row[_AT_MS] for row in page], *map(list, zip(*page, strict=True))]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            count += len(page)
    return count


def _iso(epoch_ms: int) -> str:
    moment = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
