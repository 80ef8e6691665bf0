"""What a request costs by the kinds of its tokens: the same as genai-prices computes, for every model in its book."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices import Usage
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st

from watchllm.control.prices import frozen
from watchllm.control.vendors import price_books
from watchllm.domain.usage import ModelPrice, TokenUsage

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
