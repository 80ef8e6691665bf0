"""A log of prompts from elsewhere, read line by line: what was asked, in which context, when, and what it cost.

A line is a request body of any dialect, or `{"prompt": …}`. Beside its own fields it may have `time` (ISO 8601, or
seconds or milliseconds since 1970), `cost` (USD) and `usage` (tokens, in a provider's words); a body may also stand
under `body`, with these beside it.
"""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from watchllm.cache.canonical import canonical_form
from watchllm.cache.semantic.question import HOLD_TEXT, NotTried, parted
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest, WireRefusal

MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes of one line of a log."""
_OURS: Final = ("time", "cost", "usage")
_MILLISECONDS: Final = 100_000_000_000
"""Numbers from here on are milliseconds since 1970, not seconds: in seconds they are after the year 5000."""
_INPUT: Final = ("prompt_tokens", "input_tokens")
_OUTPUT: Final = ("completion_tokens", "output_tokens")


class BadLine(ValueError):
    """A line that is no logged request; the message names the line and what was expected."""


class Logged(NamedTuple):
    """One request. `context` (16 bytes) stands for all of it but `prompt`, the text of its last user message, which is
    None where there is none to compare. `time` in seconds since 1970; `cost` in USD; `tokens` of input and output.
    `offset` is where the line starts, in bytes.
    """

    line: int
    offset: int
    context: bytes
    prompt: str | None
    model: str
    time: float | None
    cost: float | None
    tokens: tuple[int, int] | None


def read_log(lines: Iterable[bytes]) -> Iterator[Logged]:
    """The requests of a log, in its order, which is that of time; empty lines are passed over. Raises BadLine."""
    offset, latest, told = 0, -math.inf, 0
    for number, line in enumerate(lines, start=1):
        start, offset = offset, offset + len(line)
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            raise BadLine(f"line {number} has more than {MAX_LINE} bytes")
        logged = _logged(line, number, start)
        if logged.time is not None:
            if logged.time < latest:
                raise BadLine(f"line {number} is older than line {told}: sort the log by time")
            latest, told = logged.time, number
        yield logged


def _logged(line: bytes, number: int, offset: int) -> Logged:
    try:
        row = json_body.parse(line.strip())
    except (BadRequest, WireRefusal) as error:
        raise BadLine(f"line {number} is no JSON object: {error}") from None
    body = row.get("body", row)
    if type(body) is not dict or len([field for field in HOLD_TEXT if field in body]) != 1:
        raise BadLine(f'line {number} has none of "messages", "input" and "prompt", or several')
    rest = {field: value for field, value in body.items() if field not in _OURS}
    context, prompt = _parted(rest)
    model = body.get("model", "")
    if type(model) is not str:
        raise BadLine(f"line {number}: model is a name, not {str(model)[:40]!r}")
    return Logged(
        number,
        offset,
        context,
        prompt,
        model,
        _time(row.get("time"), number),
        _cost(row.get("cost"), number),
        _tokens(row.get("usage"), number),
    )


def _parted(body: dict[str, Any]) -> tuple[bytes, str | None]:
    """The digest of a body without the text that is compared, and that text."""
    parts = parted(body)
    context, text = (body, None) if isinstance(parts, NotTried) else parts
    model = str(body.get("model", "")).encode(errors="surrogatepass")
    return blake2b(model + b"\0" + canonical_form(context, plain=False), digest_size=16).digest(), text


def _time(given: Any, number: int) -> float | None:
    if given is None:
        return None
    try:
        if type(given) is str:
            moment = datetime.fromisoformat(given)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if type(given) in (int, float) and 0 <= given < 1e15:
            return float(given / 1000 if given >= _MILLISECONDS else given)
    except (ValueError, OverflowError):
        pass
    raise BadLine(f"line {number}: time is ISO 8601 or seconds since 1970, not {str(given)[:40]!r}")


def _cost(given: Any, number: int) -> float | None:
    if given is None:
        return None
    if type(given) in (int, float) and 0 <= given < 1e9:
        return float(given)
    raise BadLine(f"line {number}: cost is an amount in USD, not {str(given)[:40]!r}")


def _tokens(given: Any, number: int) -> tuple[int, int] | None:
    if given is None:
        return None
    if type(given) is dict:
        counts = [next((given[name] for name in names if name in given), 0) for names in (_INPUT, _OUTPUT)]
        if all(type(count) is int and 0 <= count < 10**12 for count in counts):
            return counts[0], counts[1]
    raise BadLine(f"line {number}: usage is an object with counts of tokens, not {str(given)[:40]!r}")
