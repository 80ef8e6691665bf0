"""What calls cost, for commands that work without a proxy."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchllm.cache.semantic.replay import Price


def price_book() -> "Price":
    """What a call costs by the price book of this installation."""
    from watchllm.cli.session import configuration
    from watchllm.control import prices, vendors
    from watchllm.domain.usage import TokenUsage
    from watchllm.providers.prices import find

    rows = prices.frozen(vendors.price_books(), configuration().home, datetime.now(UTC))
    families = sorted(
        ((prefix, vendor.name) for vendor in vendors.vendors() for prefix in vendor.families),
        key=lambda family: -len(family[0]),
    )

    def price(model: str, tokens: tuple[int, int]) -> float | None:
        provider, _, name = model.partition("/")
        if provider not in rows or not name:
            name = model
            provider = next((vendor for prefix, vendor in families if model.startswith(prefix)), "")
        found = find(rows.get(provider, ()), name)
        return None if found is None else found.cost(TokenUsage(input=tokens[0], output=tokens[1])) / 1e9

    return price
