"""The most that a call may use, from what its request says."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from watchllm.domain.usage import ModelPrice
from watchllm.proxy.demand import demand_of
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.routing.target import Target

PRICE = ModelPrice(input=1_000_000, output=2_000_000)
SERVICES = cast(Services, SimpleNamespace(tenants=SimpleNamespace(price=lambda provider, model: PRICE)))
TARGET = cast(Target, SimpleNamespace(provider="openai", model="gpt"))


def tokens(document: dict[str, Any], *, endpoint: str = "chat.completions", assumed: int = 1000) -> int:
    tenant = SimpleNamespace(settings=SimpleNamespace(assumed_output_tokens=assumed))
    request = cast(Request, SimpleNamespace(principal=SimpleNamespace(tenant=tenant, subject=None), endpoint=endpoint))
    return demand_of(SERVICES, request, msgspec.json.encode(document), (TARGET,)).tokens


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt", "messages": [{"role": "user", "content": "Why?"}], **fields}


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({}, 1000),
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60, "n": 3}, 180),
        ({"max_tokens": 100_000, "max_output_tokens": 1}, 100_000),  # whichever the provider knows
        ({"max_tokens": 0}, 1000),
        ({"max_tokens": "many"}, 1000),
    ],
)
def test_the_longest_answer_that_the_request_allows(fields: dict[str, Any], output: int) -> None:
    assert output < tokens(chat(**fields)) < output + 80


def test_each_of_several_prompts_is_answered() -> None:
    many = tokens({"model": "gpt", "prompt": ["Why?"] * 20, "max_tokens": 10}, endpoint="completions")
    one = tokens({"model": "gpt", "prompt": "Why?", "max_tokens": 10}, endpoint="completions")
    assert many - one >= 190
    coded = tokens({"model": "gpt", "prompt": [1, 2, 3], "max_tokens": 10}, endpoint="completions")
    assert coded < 60


def test_what_tools_gave_is_text_and_an_image_is_not() -> None:
    given = [{"type": "tool_result", "tool_use_id": "t", "content": "word " * 10_000}]
    assert tokens({"model": "gpt", "max_tokens": 1, "messages": [{"role": "user", "content": given}]}) > 10_000
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}]
    assert tokens({"model": "gpt", "max_tokens": 1, "messages": [{"role": "user", "content": image}]}) < 2_000


def test_pictures_are_taken_for_the_largest() -> None:
    one = tokens({"model": "gpt", "prompt": "A cat"}, endpoint="images")
    assert 6_240 < one < 6_320
    assert 2 * 6_240 <= tokens({"model": "gpt", "prompt": "A cat", "n": 3}, endpoint="images") - one < 2 * 6_240 + 10
    assert tokens({"model": "gpt", "prompt": "A cat"}, endpoint="images", assumed=10_000) > 10_000


def test_what_nobody_knows_the_price_of_is_covered_by_no_budget_that_is_spent() -> None:
    unpriced = cast(Services, SimpleNamespace(tenants=SimpleNamespace(price=lambda provider, model: None)))
    tenant = SimpleNamespace(settings=SimpleNamespace(assumed_output_tokens=10))
    request = cast(
        Request, SimpleNamespace(principal=SimpleNamespace(tenant=tenant, subject=None), endpoint="chat.completions")
    )
    simulated = cast(Target, SimpleNamespace(provider="sim", model="echo"))
    assert demand_of(unpriced, request, b"{}", (TARGET,)).nanos == 1
    assert demand_of(unpriced, request, b"{}", (simulated,)).nanos == 0


def test_embeddings_answer_with_no_tokens() -> None:
    assert tokens({"model": "gpt", "input": "Why?"}, endpoint="embeddings") < 60
