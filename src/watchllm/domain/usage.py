"""What a request consumed, as providers report it: tokens by the kind of price that applies to them."""

from typing import Any

import msgspec

from watchllm.domain.money import Nanos, NanosPerMillion, charge

# How providers name the ways of processing that have prices of their own.
TIERS = frozenset(("batch", "fast", "flex", "priority"))

MAX_COUNT = 1 << 27
"""More tokens than any model can take in; a larger count is not one, and the costs of some such would overflow the 64
bits in which they are summed up."""


def token_count(value: Any) -> int | None:
    """`value` as a count of tokens, None when it is none. Some providers write whole numbers as floats."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


class TokenUsage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Token counts of one answer. `input` and `output` are totals; the others are parts of them, and `cache_write_1h`
    is the part of `cache_write` that is kept for an hour. `tier` is one of TIERS when the answer says that it was
    processed, and so charged, otherwise than usual."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    estimated: bool = False
    cache_write_1h: int = 0
    tier: str = ""

    @property
    def total(self) -> int:
        return self.input + self.output


class ModelPrice(msgspec.Struct, frozen=True, array_like=True):
    """Rates of one model, in nano-dollars a million tokens; None where the book has no rate of that kind."""

    input: NanosPerMillion | None = None
    output: NanosPerMillion | None = None
    cached_input: NanosPerMillion | None = None
    cache_write: NanosPerMillion | None = None
    audio_input: NanosPerMillion | None = None
    audio_output: NanosPerMillion | None = None
    per_request: Nanos = 0
    tiers: "tuple[PriceTier, ...]" = ()
    """Rates that replace all of these for a request whose input is longer than a threshold; ascending."""
    cache_write_1h: NanosPerMillion | None = None
    reasoning: NanosPerMillion | None = None

    def cost(self, usage: TokenUsage) -> Nanos:
        """The price of `usage`. A part without a rate of its own is charged at its total's rate."""
        for tier in reversed(self.tiers):
            if usage.input > tier.above:
                return tier.price.cost(usage)
        plain_input = usage.input
        plain_output = usage.output
        total = self.per_request
        if self.cached_input is not None:
            total += charge(usage.cached_input, self.cached_input)
            plain_input -= usage.cached_input
        if self.cache_write is not None:
            for_an_hour = usage.cache_write_1h if self.cache_write_1h is not None else 0
            total += charge(usage.cache_write - for_an_hour, self.cache_write)
            total += charge(for_an_hour, self.cache_write_1h or 0)
            plain_input -= usage.cache_write
        if self.audio_input is not None:
            total += charge(usage.audio_input, self.audio_input)
            plain_input -= usage.audio_input
        if self.audio_output is not None:
            total += charge(usage.audio_output, self.audio_output)
            plain_output -= usage.audio_output
        if self.reasoning is not None:
            total += charge(usage.reasoning, self.reasoning)
            plain_output -= usage.reasoning
        return total + charge(max(plain_input, 0), self.input or 0) + charge(max(plain_output, 0), self.output or 0)


class PriceTier(msgspec.Struct, frozen=True, array_like=True):
    """`price` holds for the whole request, not only for its tokens above the threshold."""

    above: int
    price: ModelPrice
