"""Money: integer nano-dollars inside, United States dollars with six decimals outside."""

from typing import TypeAlias

Nanos: TypeAlias = int
"""An amount in nano-dollars (10⁻⁹ USD)."""

NanosPerMillion: TypeAlias = int
"""A price in nano-dollars for a million units (tokens); $0.15 a million tokens is 150_000_000."""

NANOS_PER_USD = 1_000_000_000


def charge(units: int, rate: NanosPerMillion) -> Nanos:
    """The price of `units` at `rate`, rounded half up to the nano-dollar."""
    return (units * rate + 500_000) // 1_000_000


def format_usd(amount: Nanos) -> str:
    """Dollars with six decimals, rounded half up: 1_234_500 is `0.001235`."""
    micros = (abs(amount) + 500) // 1000
    sign = "-" if amount < 0 and micros else ""
    return f"{sign}{micros // 1_000_000}.{micros % 1_000_000:06d}"
