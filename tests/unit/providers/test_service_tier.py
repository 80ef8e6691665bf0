"""What an answer says of how it was processed is part of its usage, since it decides the price."""

import msgspec
import pytest

from watchllm.domain.usage import TokenUsage
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
