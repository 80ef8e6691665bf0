"""Templates and how values are written in them: amounts, sizes, times."""

from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def environment() -> Environment:
    """Everything is escaped; a name that is not in the context is an error."""
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(usd=usd, size=size, when=when, exactly=exactly, count=count)
    return templates


def usd(amount: float) -> str:
    """Dollars; six decimals below one cent, where two would say nothing."""
    return f"${amount:,.6f}" if 0 < amount < 0.01 else f"${amount:,.2f}"


def size(number: float) -> str:
    """Bytes in the largest unit that leaves at least one."""
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def when(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def exactly(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def count(number: int) -> str:
    return f"{number:,}"
