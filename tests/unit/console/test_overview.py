"""What the overview says where, and that it says nothing that it does not know."""

from pathlib import Path

import pytest

from watchllm.configuration import load
from watchllm.console.pages.overview import CacheState, base_url, instance_providers, summed
from watchllm.console.proxies import ProxyState
from watchllm.console.rendering import size, usd


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "http://127.0.0.1:8787/v1"),
        ({"WATCHLLM_PROXY_PORT": "9000"}, "http://127.0.0.1:9000/v1"),
        ({"WATCHLLM_PROXY_PORT": "0"}, None),
        ({"WATCHLLM_HOST": "0.0.0.0"}, "http://box.local:8787/v1"),
        ({"WATCHLLM_HOST": "::1"}, "http://[::1]:8787/v1"),
        ({"WATCHLLM_TLS_CERT": "/c", "WATCHLLM_TLS_KEY": "/k"}, "https://127.0.0.1:8787/v1"),
        ({"WATCHLLM_PUBLIC_URL": "https://llm.example.com/"}, "https://llm.example.com/v1"),
    ],
)
def test_the_base_url_is_the_one_that_clients_reach(tmp_path: Path, env: dict[str, str], expected: str | None) -> None:
    assert base_url(load({"home": str(tmp_path)}, env), "box.local") == expected


def test_providers_are_named_with_their_keys_masked(tmp_path: Path) -> None:
    env = {
        "OPENAI_API_KEY": "sk-0123456789abcdef",
        "OPENAI_BASE_URL": "https://user:word@gate.example.com/v1",
        "GROQ_BASE_URL": "https://groq.example.com/v1",
        "ANTHROPIC_API_KEY": "sk-ant-0123456789abcdef",
    }
    rows = {row.name: row for row in instance_providers(load({"home": str(tmp_path)}, env))}
    assert (rows["openai"].masked, rows["openai"].note) == ("***cdef", "ready")
    assert rows["openai"].base_url == "https://user:***@gate.example.com/v1"
    assert (rows["groq"].masked, "GROQ_API_KEY" in rows["groq"].note) == ("", True)
    assert (rows["anthropic"].masked, rows["anthropic"].note) == ("***cdef", "ready")
    assert rows["anthropic"].base_url == "https://api.anthropic.com/v1"
    assert "built in" in rows["sim"].note


def test_states_are_summed_over_proxies_and_those_of_no_request_are_left_out() -> None:
    states = [
        ProxyState(name="a", state="ok", requests={"HIT": 2, "": 9}),
        ProxyState(name="b", state="ok", requests={"HIT": 1, "MISS": 1}),
    ]
    assert summed(states) == [
        CacheState("HIT", "answered from the cache", 3, 0.75),
        CacheState("MISS", "asked upstream", 1, 0.25),
    ]
    assert summed([]) == []


def test_amounts_and_sizes_keep_what_matters() -> None:
    assert [usd(amount) for amount in (0, 0.000_012, 0.5, 1234.5)] == ["$0.00", "$0.000012", "$0.50", "$1,234.50"]
    assert [size(number) for number in (0, 1023, 1024, 1 << 30, 1 << 52)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 GiB", "4096.0 TiB",
    ]  # fmt: skip
