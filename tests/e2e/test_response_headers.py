"""What an answer's header lines say: where it came from, what it cost and saved, where the time went."""

import json
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price

from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawResponse
from tests.support.scripted_upstream import Script, scripted_upstream

CHAT = "/v1/chat/completions"


def number(answer: RawResponse, name: str) -> float:
    value = answer.header(name)
    assert value is not None, name
    return float(value)


def timings(answer: RawResponse) -> dict[str, float]:
    parts = str(answer.header("Server-Timing")).split(", ")
    return {name: float(duration) for name, duration in (part.split(";dur=") for part in parts)}


def test_a_miss(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.chat(project.key, "What do you say?")
    assert answer.header("X-WatchLLM-Cache") == "MISS"
    assert answer.header("X-WatchLLM-Provider") == "openai"
    assert answer.header("X-WatchLLM-Model") == "gpt-4o-mini"
    assert str(answer.header("X-WatchLLM-Upstream-Request-Id")).startswith("req_sim")
    assert set(timings(answer)) == {"auth", "cache", "embed", "upstream", "total"}
    assert 0 < number(answer, "X-WatchLLM-Cost-USD") < 0.01
    for name in ("X-WatchLLM-Cache-Age", "X-WatchLLM-Saved-USD", "X-WatchLLM-Tokens-Saved", "X-WatchLLM-Fallback"):
        assert answer.header(name) is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_hit(gateway: Gateway, sim: Sim, project: Project, stream: bool) -> None:
    first = gateway.chat(project.key, "What do you say?")
    answer = gateway.chat(project.key, "What do you say?", stream=stream)
    assert answer.header("X-WatchLLM-Cache") == "HIT"
    assert 0 <= int(str(answer.header("X-WatchLLM-Cache-Age"))) <= 60
    assert answer.header("X-WatchLLM-Cost-USD") == "0.000000"
    assert answer.header("X-WatchLLM-Saved-USD") == first.header("X-WatchLLM-Cost-USD")
    assert answer.header("X-WatchLLM-Tokens-Saved") == str(first.json()["usage"]["total_tokens"])
    assert answer.header("X-WatchLLM-Provider") == "openai"
    assert answer.header("X-WatchLLM-Model") == "gpt-4o-mini"
    assert answer.header("X-WatchLLM-Upstream-Request-Id") is None
    assert answer.header("X-Request-Id") != first.header("X-Request-Id")
    assert set(timings(answer)) == {"auth", "cache", "total"}
    assert str(answer.header("Content-Type")).startswith("text/event-stream" if stream else "application/json")


def test_every_answer_has_an_id_of_its_own(gateway: Gateway, sim: Sim, project: Project) -> None:
    answers = [
        gateway.chat(project.key, "Who?"),
        gateway.chat(project.key, "Who?"),
        gateway.chat(project.key, "Who?", stream=True, temperature=0),
        gateway.chat("wrong", "Who?"),
        gateway.get("/health"),
        gateway.get("/nothing"),
        gateway.post(CHAT, project.key, b"{"),
        gateway.post("/v1/moderations", project.key, {"input": "x"}),
        gateway.chat(project.key, "Who?", model="gpt-4o-mini+status-500"),
    ]
    ids = [answer.header("X-Request-Id") for answer in answers]
    assert len(set(ids)) == len(answers)
    assert all(str(found).startswith("req_") for found in ids)


def test_time_spent_upstream_is_not_overhead(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.chat(project.key, "Slowly?", model="gpt-4o-mini+slow-300ms")
    latency, overhead = number(answer, "X-WatchLLM-Latency-Ms"), number(answer, "X-WatchLLM-Overhead-Ms")
    assert latency >= 300
    assert overhead > 0
    parts = timings(answer)
    assert parts["upstream"] >= 300
    assert abs(parts["upstream"] + overhead - latency) < 1


def test_a_streamed_miss_cannot_know_its_cost(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.chat(project.key, "Streamed?", stream=True)
    assert answer.header("X-WatchLLM-Cache") == "MISS"
    assert answer.header("X-WatchLLM-Cost-USD") is None
    again = gateway.chat(project.key, "Streamed?", stream=True)
    # The gateway asked for the usage, so the hit knows what it saved.
    assert number(again, "X-WatchLLM-Saved-USD") > 0


def test_the_simulator_costs_nothing_and_is_priced(gateway: Gateway, sim: Sim, project: Project) -> None:
    for _ in range(2):
        answer = gateway.chat(project.key, "Free?", model="sim/echo")
        assert answer.header("X-WatchLLM-Cost-USD") == "0.000000"


def test_a_model_without_a_known_price_costs_nothing_known(gateway: Gateway, sim: Sim, project: Project) -> None:
    first = gateway.chat(project.key, "How much?", model="gpt-unheard-of-9")
    again = gateway.chat(project.key, "How much?", model="gpt-unheard-of-9")
    assert first.header("X-WatchLLM-Cost-USD") is None
    assert (again.header("X-WatchLLM-Cache"), again.header("X-WatchLLM-Saved-USD")) == ("HIT", None)
    assert again.header("X-WatchLLM-Tokens-Saved") == str(again.json()["usage"]["total_tokens"])


def test_an_answer_without_usage_has_no_known_cost(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.chat(project.key, "How much?", model="gpt-4o-mini+no-usage")
    assert (answer.status, answer.header("X-WatchLLM-Cost-USD")) == (200, None)


@pytest.mark.parametrize(
    ("model", "prompt", "cached", "completion"),
    [
        ("gpt-4o-mini", 123_457, 0, 789),
        ("gpt-4o-mini", 123_457, 100_001, 789),
        ("gpt-4o", 1_000_003, 0, 11),
        ("gpt-4o", 50_021, 1_024, 12_345),
        ("gpt-4.1", 200_003, 4_096, 7),
        ("o3", 10_007, 5_003, 20_011),
    ],
)
def test_the_cost_is_what_genai_prices_computes(
    open_gateway: Gateway, sim: Sim, model: str, prompt: int, cached: int, completion: int
) -> None:
    project = open_gateway.installation.project("priced")
    with scripted_upstream(_with_usage(prompt, cached, completion)) as upstream:
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
        first, again = (open_gateway.chat(project.key, "How much?", model=model) for _ in range(2))
    usage = Usage(input_tokens=prompt, cache_read_tokens=cached or None, output_tokens=completion)
    expected = calc_price(usage, model_ref=model, provider_id="openai").total_price
    assert expected > Decimal("0.0001")
    assert abs(Decimal(str(first.header("X-WatchLLM-Cost-USD"))) - expected) <= Decimal("0.000000501")
    assert again.header("X-WatchLLM-Saved-USD") == first.header("X-WatchLLM-Cost-USD")
    assert len(str(first.header("X-WatchLLM-Cost-USD")).partition(".")[2]) == 6


def test_a_redirect_is_not_followed(open_gateway: Gateway, sim: Sim) -> None:
    project = open_gateway.installation.project("redirected")
    with scripted_upstream(lambda call: call.reply(302, b"", location=f"{sim.base_url}/models")) as upstream:
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
        answer = open_gateway.chat(project.key, "Where?")
    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_error")
    assert answer.header("Location") is None
    assert sim.calls() == 0


def _with_usage(prompt: int, cached: int, completion: int) -> Script:
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "any",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    return lambda call: call.reply(200, json.dumps(document).encode())
