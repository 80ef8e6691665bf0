"""What an answer says of how it was processed is part of its usage, since it decides the price."""

import msgspec
import pytest

from watchllm.domain.usage import TokenUsage
from watchllm.providers.anthropic.usage import token_usage as anthropic_usage
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.storable import judge


@pytest.mark.parametrize(
    ("service_tier", "tier"),
    [("priority", "priority"), ("flex", "flex"), ("default", ""), ("scale", ""), (None, ""), (["flex"], ""), (3, "")],
)
def test_an_answers_tier_is_in_its_usage(service_tier: object, tier: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    message = {"role": "assistant", "content": "Hi"}
    answer = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    whole = judge("generate", msgspec.json.encode(answer | {"service_tier": service_tier}))
    assert whole.usage == TokenUsage(3, 1, tier=tier)
    delta = [{"index": 0, "delta": message, "finish_reason": "stop"}]
    stream = StreamAssembler("generate")
    stream.feed(msgspec.json.encode({"id": "c", "choices": delta, "service_tier": service_tier}))
    stream.feed(msgspec.json.encode({"id": "c", "choices": [], "usage": usage}))
    assert stream.usage == TokenUsage(3, 1, tier=tier)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"cache_creation": {"ephemeral_1h_input_tokens": 40, "ephemeral_5m_input_tokens": 60}}, (40, "")),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 400}}, (100, "")),
        ({"cache_creation": None}, (0, "")),
        ({"cache_creation": {"ephemeral_1h_input_tokens": "40"}}, (0, "")),
        ({"service_tier": "batch"}, (0, "batch")),
        ({"service_tier": "standard", "speed": "fast"}, (0, "fast")),
        ({"service_tier": "standard", "speed": "standard"}, (0, "")),
        ({"service_tier": ["batch"], "speed": 1}, (0, "")),
    ],
)
def test_anthropic_tells_it_in_its_usage(reported: dict[str, object], expected: tuple[int, str]) -> None:
    usage = anthropic_usage({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 100, **reported})
    assert usage is not None
    assert (usage.input, usage.cache_write) == (101, 100)
    assert (usage.cache_write_1h, usage.tier) == expected
