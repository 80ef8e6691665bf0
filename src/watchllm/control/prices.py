"""Freezes the price book of `genai-prices` (the data in its wheel; no network) into price rows for the snapshot.

What is chosen where the book knows more than a rate:
- a price with a start date, or for a time of day: the one in force when the snapshot is derived, which is every minute;
- tiers by length of the input: kept, the tier's rates hold for the whole request, as the providers charge it;
- variants by the way of processing that an answer tells (flex, priority, fast, batch): kept beside the plain price;
  by region or kind of search, which no answer tells: the plain price;
- fees per request: kept; per web search: not in the row, no answer counts them alike;
- cached audio: at the rate of cached input, since no answer says how much of the audio was cached;
- a model charged by what token counts don't tell (images, video, characters, pages, hours of audio): left out, that is
  unpriced.

What a provider says its answer cost (OpenRouter's `usage.cost`) is not used: the costs of hits, of cut streams and of
other providers come from rates, so that sums compare like with like, and a project's own provider could say anything.

`WATCHLLM_HOME/prices.toml` goes on top, rates in USD a million tokens, `*` at a name's end for a prefix:

    [openai."gpt-4o-mini"]
    input = 0.15
    output = 0.60
    cached_input = 0.075

    [my-provider."*"]
    input = 0.05
    output = 0.05
"""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from watchllm.control.errors import PricesUnusable
from watchllm.control.publication import OwnPrices
from watchllm.domain.money import NANOS_PER_USD, Nanos
from watchllm.domain.snapshot import PriceRow
from watchllm.domain.usage import ModelPrice, PriceTier

FILE_NAME = "prices.toml"
FREE = ModelPrice(input=0, output=0)
_NO_RATES = ModelPrice()

_FORM = "; its form is in docs/reference/configuration.md; without it the built-in prices hold"

_RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}
# Rates of things that a token count does not tell.
_UNCOUNTED = {
    *("input_image_mtok", "output_image_mtok", "input_video_mtok", "output_video_mtok", "output_citation_mtok"),
    *("input_mchars", "audio_hours", "input_audio_hours", "input_document_kpages", "input_annotated_document_kpages"),
    *("input_text_messages_kcount",),
}
# What the book's variants are for, and the tier by which answers tell them.
_TIERS = {
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}


def frozen(providers: Mapping[str, str], home: Path, now: datetime) -> dict[str, tuple[PriceRow, ...]]:
    """Price rows by provider, overrides first; `sim` is free. Providers without any price are absent.

    `providers` says what the book calls each provider of ours.

    Raises PricesUnusable when prices.toml cannot be understood.
    """
    return with_own(book(providers, now), own(home) or {})


def book(providers: Mapping[str, str], now: datetime) -> dict[str, tuple[PriceRow, ...]]:
    """As `frozen`, without the operator's prices."""
    rows = _book(providers, now)
    rows["sim"] = (PriceRow({"starts_with": ""}, FREE, "sim"),)
    return rows


def named_by_operator(home: Path) -> frozenset[str]:
    """The providers that prices.toml has prices of. Raises PricesUnusable."""
    return frozenset(own(home) or {})


def with_own(rows: Mapping[str, tuple[PriceRow, ...]], own: OwnPrices) -> dict[str, tuple[PriceRow, ...]]:
    """`rows` with the operator's before them."""
    return {**rows, **{provider: first + rows.get(provider, ()) for provider, first in own.items()}}


def nanos_per_million(usd: Decimal) -> Nanos:
    """Exact down to the nano-dollar a million tokens; what is finer is rounded half up."""
    return int((usd * NANOS_PER_USD).to_integral_value(rounding="ROUND_HALF_UP"))


def _book(providers: Mapping[str, str], now: datetime) -> dict[str, tuple[PriceRow, ...]]:
    # Imported here: its data takes a quarter of a second, and most commands publish no prices.
    from genai_prices.data import providers as book

    models = {provider.id: provider.models for provider in book}
    found = {}
    for name, called in providers.items():
        if called in models:
            rows = (_row(model, now) for model in models[called])
            found[name] = tuple(row for row in rows if row is not None)
    return found


def _row(model: Any, now: datetime) -> PriceRow | None:
    prices = vars(model.get_prices(now.astimezone(UTC)))
    priced = {name for name, rate in prices.items() if rate is not None}
    if "input_mtok" not in priced or priced & _UNCOUNTED:
        return None
    usual = _price(prices)
    variants = {tier: _price(vars(model.get_prices(now.astimezone(UTC), context))) for tier, context in _TIERS.items()}
    others = {tier: price for tier, price in variants.items() if price != usual}
    return PriceRow(_match(model.match), usual, model.id, others)


def _price(prices: dict[str, Any]) -> ModelPrice:
    starts = sorted({tier.start for rate in prices.values() for tier in getattr(rate, "tiers", ())})
    tiers = tuple(PriceTier(start, _rates(prices, start)) for start in starts)
    return msgspec.structs.replace(_rates(prices, None), tiers=tiers)


def _rates(prices: dict[str, Any], above: int | None) -> ModelPrice:
    rates = {ours: _rate(prices.get(theirs), above) for ours, theirs in _RATES.items()}
    per_request = _rate(prices.get("requests_kcount"), above) or 0
    return msgspec.structs.replace(_NO_RATES, **rates, per_request=per_request // 1000)


def _rate(rate: Any, above: int | None) -> int | None:
    """The rate for inputs just above a threshold, or below all of them when it is None."""
    if rate is None:
        return None
    if isinstance(rate, Decimal):
        return nanos_per_million(rate)
    usd = rate.base
    for tier in rate.tiers:
        if above is not None and tier.start <= above:
            usd = tier.price
    return nanos_per_million(usd)


def _match(clause: Any) -> dict[str, Any]:
    """The clause as plain data; texts in lower case, since names are compared without regard to it."""
    ((name, value),) = vars(clause).items()
    if name in ("or_", "and_"):
        return {name.rstrip("_"): [_match(part) for part in value]}
    return {name: value if name == "regex" else value.lower()}


class _Override(msgspec.Struct, forbid_unknown_fields=True):
    input: Decimal
    output: Decimal = Decimal(0)
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    per_request: Decimal = Decimal(0)


def own(home: Path) -> OwnPrices | None:
    """The rows of the home's prices.toml, None where it has none. Raises PricesUnusable."""
    path = home / FILE_NAME
    try:
        # Read as Decimal: 0.1 in binary would be off by a nano-dollar sooner or later.
        raw = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PricesUnusable(f"{path}: {error}{_FORM}") from None
    return {provider: _overrides_of(path, provider, models) for provider, models in raw.items()}


def _overrides_of(path: Path, provider: str, models: Any) -> tuple[PriceRow, ...]:
    if not isinstance(models, dict):
        raise _wrong(path, provider, f'is no table; write [{provider}."MODEL"] and its prices below it')
    entries = {name: _override(path, provider, name, entry) for name, entry in models.items()}
    return tuple(_override_row(path, provider, name, entry) for name, entry in _exact_names_first(entries))


def _override(path: Path, provider: str, name: str, entry: Any) -> "_Override":
    try:
        return msgspec.convert(entry, _Override)
    except msgspec.ValidationError as error:
        # Where in the entry it is; the entry itself is named before it.
        raise _wrong(path, f'[{provider}."{name}"]', str(error).replace(" - at `$.", " - at `")) from None


def _wrong(path: Path, where: str, what: str) -> PricesUnusable:
    return PricesUnusable(f"{path}: {where}: {what}{_FORM}")


def _exact_names_first(models: dict[str, _Override]) -> list[tuple[str, _Override]]:
    return sorted(models.items(), key=lambda item: (item[0].endswith("*"), -len(item[0])))


def _override_row(path: Path, provider: str, name: str, entry: _Override) -> PriceRow:
    rates = {field: rate for field, rate in msgspec.structs.asdict(entry).items() if rate is not None}
    for field, rate in rates.items():
        if not rate.is_finite() or not 0 <= rate <= 1_000_000:
            raise _wrong(path, f'[{provider}."{name}"]', f"{field} must be a price in USD, not {rate}")
    price = msgspec.structs.replace(_NO_RATES, **{field: nanos_per_million(rate) for field, rate in rates.items()})
    lowered = name.lower()
    match = {"starts_with": lowered[:-1]} if lowered.endswith("*") else {"equals": lowered}
    return PriceRow(match, price, name)
