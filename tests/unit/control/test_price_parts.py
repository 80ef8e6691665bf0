"""What a request costs by the kinds of its tokens: the same as genai-prices computes, for every model in its book."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from genai_prices import Usage
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st

from watchllm.control.prices import frozen
from watchllm.control.vendors import price_books
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.providers.prices import find

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PROVIDERS = price_books()
ROWS = [
    (provider, row)
    for provider, rows in frozen(PROVIDERS, Path("nowhere"), NOW).items()
    if provider != "sim"
    for row in rows
]
BOOK = {
    (name, model.id): model.get_prices(NOW)
    for name, called in PROVIDERS.items()
    for entry in providers
    if entry.id == called
    for model in entry.models
}
ROWS_BY_MODEL = {(provider, row.model): row for provider, row in ROWS}
counts = st.integers(0, 400_000)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Parts that do not overlap: what is cached is not written to the cache, nor audio."""
    plain, cached, written, audio, output, audio_output, reasoning = (draw(counts) for _ in range(7))
    return TokenUsage(
        input=plain + cached + written + audio,
        output=output + audio_output + reasoning,
        cached_input=cached,
        cache_write=written,
        reasoning=reasoning,
        audio_input=audio,
        audio_output=audio_output,
    )


@settings(max_examples=300)
@given(st.sampled_from(ROWS), usages())
def test_each_kind_of_token_has_its_own_price(of: tuple[str, object], usage: TokenUsage) -> None:
    provider, row = of
    book = BOOK[provider, row.model]  # type: ignore[attr-defined]
    expected = book.calc_price(
        Usage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cached_input,
            cache_write_tokens=usage.cache_write,
            cache_audio_read_tokens=0,
            input_audio_tokens=usage.audio_input,
            output_audio_tokens=usage.audio_output,
            output_reasoning_tokens=usage.reasoning,
        )
    )["total_price"]
    price: ModelPrice = row.price  # type: ignore[attr-defined]
    # Each of six parts is rounded to the nano-dollar.
    assert abs(price.cost(usage) - expected * 10**9) <= 3, row


@pytest.mark.parametrize("kind", ["cached_input", "cache_write", "audio_input", "audio_output"])
def test_the_book_has_such_prices(kind: str) -> None:
    assert any(getattr(row.price, kind) for _, row in ROWS)


@given(usages())
def test_reasoning_is_charged_as_output(usage: TokenUsage) -> None:
    price = ModelPrice(input=1_000_000, output=3_000_000)
    assert price.cost(usage) == usage.input + 3 * usage.output


def test_a_write_for_an_hour_has_a_price_of_its_own() -> None:
    price = ROWS_BY_MODEL["anthropic", "claude-opus-4-5"].price
    usage = TokenUsage(input=1_000_000, cache_write=1_000_000, cache_write_1h=400_000)
    assert (price.cache_write, price.cache_write_1h) == (6_250_000_000, 10_000_000_000)
    assert price.cost(usage) == 600_000 * 6_250 + 400_000 * 10_000
    assert msgspec.structs.replace(price, cache_write_1h=None).cost(usage) == 1_000_000 * 6_250


def test_reasoning_that_has_a_price_is_not_charged_twice() -> None:
    price = ModelPrice(input=0, output=8_000_000, reasoning=3_000_000)
    assert price.cost(TokenUsage(output=10, reasoning=4)) == 6 * 8 + 4 * 3
    assert any(row.price.reasoning is not None for row in ROWS_BY_MODEL.values())


@pytest.mark.parametrize(
    ("provider", "tier", "context"),
    [
        ("openai", "flex", {"service_tier": "flex"}),
        ("openai", "priority", {"service_tier": "priority"}),
        ("openai", "fast", {"service_tier": "fast"}),
        ("openai", "batch", {"processing": "batch"}),
        ("anthropic", "batch", {"processing": "batch"}),
        ("anthropic", "fast", {"speed": "fast"}),
        ("gemini", "flex", {"service_tier": "flex"}),
        ("mistral", "batch", {"processing": "batch"}),
        ("xai", "batch", {"processing": "batch"}),
    ],
)
def test_a_tier_that_the_answer_tells_has_its_price(provider: str, tier: str, context: dict[str, str]) -> None:
    rows = [row for (name, _), row in ROWS_BY_MODEL.items() if name == provider and tier in row.variants]
    assert rows
    (book,) = [entry for entry in providers if entry.id == PROVIDERS[provider]]
    models = {model.id: model for model in book.models}
    usage = TokenUsage(input=30_000, output=2_000, cached_input=10_000)
    for row in rows:
        expected = (
            models[row.model]
            .get_prices(NOW, context)
            .calc_price(  # type: ignore[arg-type]
                Usage(input_tokens=30_000, output_tokens=2_000, cache_read_tokens=10_000)
            )["total_price"]
        )
        price = row.variants[tier]
        assert abs(price.cost(usage) - expected * 10**9) <= 3, row
        assert price != row.price


def test_a_tier_without_a_price_of_its_own_costs_what_is_usual() -> None:
    rows = frozen(PROVIDERS, Path("nowhere"), NOW)["openai"]
    assert find(rows, "gpt-4o", "priority") not in (None, find(rows, "gpt-4o"))
    assert find(rows, "gpt-4o-audio-preview", "priority") == find(rows, "gpt-4o-audio-preview")
    assert find(rows, "no-such-model", "priority") is None
