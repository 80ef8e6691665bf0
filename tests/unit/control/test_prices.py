"""The frozen price book: exact money, what can't be priced left out, the operator's prices on top."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage
from genai_prices.data import providers

from watchllm.control.errors import PricesUnusable
from watchllm.control.prices import frozen, nanos_per_million
from watchllm.control.vendors import price_books
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.providers.prices import find

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PROVIDERS = price_books()
OPENAI = {"openai": "openai"}


def test_rates_are_exact() -> None:
    assert nanos_per_million(Decimal("0.15")) == 150_000_000
    assert nanos_per_million(Decimal("0.0000000004")) == 0
    assert nanos_per_million(Decimal("0.0000000005")) == 1


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_row_costs_what_the_book_says(tmp_path: Path, provider: str) -> None:
    rows = frozen(PROVIDERS, tmp_path, NOW)[provider]
    assert len(rows) > 5
    book = {model.id: model for entry in providers if entry.id == PROVIDERS[provider] for model in entry.models}
    for row in rows:
        for tokens in (1_000, 1_000_000):
            price = book[row.model].get_prices(NOW).calc_price(Usage(input_tokens=tokens, output_tokens=7_000))
            ours = row.price.cost(TokenUsage(input=tokens, output=7_000))
            assert abs(ours - price["total_price"] * 10**9) <= 2, row


def test_prices_by_date_are_those_of_the_day(tmp_path: Path) -> None:
    before = frozen(OPENAI, tmp_path, datetime(2025, 6, 9, tzinfo=UTC))["openai"]
    after = frozen(OPENAI, tmp_path, datetime(2025, 6, 10, tzinfo=UTC))["openai"]
    rates = [price.input for price in (find(before, "o3"), find(after, "o3")) if price is not None]
    assert rates == [10_000_000_000, 2_000_000_000]


def test_a_long_prompt_is_charged_at_its_tier_throughout(tmp_path: Path) -> None:
    price = find(frozen(OPENAI, tmp_path, NOW)["openai"], "gpt-5.4")
    assert price is not None
    at, above = price.cost(TokenUsage(input=272_000)), price.cost(TokenUsage(input=272_001))
    assert at == 272_000 * 2_500
    assert above == 272_001 * 5_000


@pytest.mark.parametrize("model", ["whisper-1", "tts-1", "gpt-image-1", "no-such-model"])
def test_what_tokens_do_not_tell_is_unpriced(tmp_path: Path, model: str) -> None:
    assert find(frozen(OPENAI, tmp_path, NOW)["openai"], model) is None


def test_the_simulated_provider_is_free_and_unknown_ones_are_absent(tmp_path: Path) -> None:
    rows = frozen(OPENAI | {"unheard-of": "unheard-of"}, tmp_path, NOW)
    assert find(rows["sim"], "echo") == ModelPrice(input=0, output=0)
    assert "unheard-of" not in rows


def test_the_operators_prices_go_on_top(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(
        '[openai."gpt-4o-mini"]\ninput = 0.1\noutput = 2\n'
        '[mine."*"]\ninput = 1\n[mine."big-*"]\ninput = 2\n[mine."big-one"]\ninput = 3\nper_request = 0.000001\n'
    )
    rows = frozen(OPENAI, tmp_path, NOW)
    assert find(rows["openai"], "GPT-4o-mini") == ModelPrice(input=100_000_000, output=2_000_000_000)
    assert find(rows["openai"], "gpt-4o") is not None
    rates = [price.input for name in ("x", "big-x", "big-one") if (price := find(rows["mine"], name)) is not None]
    assert rates == [1_000_000_000, 2_000_000_000, 3_000_000_000]
    big_one = find(rows["mine"], "big-one")
    assert big_one is not None
    assert big_one.per_request == 1_000


@pytest.mark.parametrize(
    "content",
    ["not toml", "[openai]\nx = 1", '[openai."a"]\noutput = 1', '[openai."a"]\ninput = -1', '[openai."a"]\ninput = nan',
     '[openai."a"]\ninput = "cheap"', '[openai."a"]\ninput = 1\nouput = 2'],
)  # fmt: skip
def test_a_price_file_of_the_wrong_form_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "prices.toml").write_text(content)
    with pytest.raises(PricesUnusable, match=r"prices\.toml"):
        frozen(OPENAI, tmp_path, NOW)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[openai."a"]\noutput = 1', '[openai."a"]: Object missing required field `input`;'),
        ('[openai."a"]\ninput = "cheap"', '[openai."a"]: Invalid decimal string - at `input`;'),
        ('[openai."a"]\ninput = -1', '[openai."a"]: input must be a price in USD, not -1;'),
        ("openai = 1", 'openai: is no table; write [openai."MODEL"]'),
    ],
)
def test_the_entry_of_the_wrong_form_is_named(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "prices.toml").write_text(f'[groq."right"]\ninput = 1\n{content}' if "[" in content else content)
    with pytest.raises(PricesUnusable) as caught:
        frozen(OPENAI, tmp_path, NOW)
    assert f"prices.toml: {says}" in str(caught.value)
    assert "`$" not in str(caught.value)
