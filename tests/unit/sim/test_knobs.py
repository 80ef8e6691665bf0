"""Knobs: slowness, failure and garbage exactly as asked, by flag, model name and header."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard

from watchllm.sim.knobs import InvalidKnob, Knobs, ModelNames, from_header

CHAT = "/v1/chat/completions"


def test_model_names_carry_knobs_that_can_be_combined() -> None:
    names = ModelNames(Knobs(latency=9.0, tokens=3))
    assert names.read("sim/slow-500ms")[0] == Knobs(latency=0.5, tokens=3)
    assert names.read("sim/slow-2s+chunk-20ms+tokens-50+no-usage")[0] == Knobs(
        latency=2.0, chunk_time=0.02, tokens=50, no_usage=True
    )
    assert names.read("gpt-4o-mini+late-usage-300ms+cut-3")[0] == Knobs(latency=9.0, tokens=3, late_usage=0.3, cut=3)
    assert names.read("status-429+retry-after-2")[0].status == 429


@pytest.mark.parametrize("name", ["gpt-4o", "tokens-large", "claude-3+5", "code-davinci-002", "slow", "sim/", "cut--1"])
def test_other_names_are_just_names(name: str) -> None:
    assert ModelNames(Knobs()).read(name) == (Knobs(), name.removeprefix("sim/"))


def test_a_header_wins_over_the_model_and_the_model_over_the_flags(make_sim: Callable[..., Any]) -> None:
    sim = make_sim(knobs=Knobs(tokens=5))
    assert sim.chat().json["usage"]["completion_tokens"] == 5
    assert sim.chat(model="m+tokens-6").json["usage"]["completion_tokens"] == 6
    assert sim.chat(model="m+tokens-6", knobs="tokens=7").json["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize(
    "header",
    ["nonsense", "latency", "latency=5", "latency=xms", "status=99", "error_rate=2", "usage=never", "cut=-1", "hang=1"],
)
def test_a_header_that_makes_no_sense_is_refused_with_the_list_of_knobs(sim: Any, header: str) -> None:
    with pytest.raises(InvalidKnob):
        from_header(header, Knobs())
    refused = sim.chat(knobs=header)
    assert refused.status == 400
    assert refused.json["error"]["code"] == "invalid_knob"


def test_latency_delays_the_whole_answer(sim: Any) -> None:
    exchange = sim.chat(knobs="latency=500ms")
    sim.clock.advance(0.499)
    assert not exchange.status
    assert sim.stats()["open"] == 1
    assert sim.stats()["peak_open"] == 1
    sim.clock.advance(0.001)
    assert exchange.status == 200
    assert sim.stats()["open"] == 0


def test_chunk_time_separates_the_events_of_a_stream(sim: Any) -> None:
    exchange = sim.chat(model="sim/chunk-20ms+tokens-4", stream=True)
    seen = [len(exchange.writes)]
    while not exchange.finished:
        sim.clock.advance(0.02)
        seen.append(len(exchange.writes))
    # role, four tokens, then the end together with [DONE].
    assert seen == [1, 2, 3, 4, 5, 7]


def test_a_slow_reader_is_waited_for(sim: Any) -> None:
    exchange = sim.chat(knobs="tokens=50,latency=1s", stream=True)
    exchange.writable = False
    sim.clock.advance(1)
    assert exchange.writes == []
    exchange.writable = True
    exchange.on_writable()
    assert exchange.finished
    assert exchange.events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_status_is_an_error_in_openais_form(sim: Any, stream: bool) -> None:
    exchange = sim.chat(knobs="status=429,retry_after=2", stream=stream)
    assert exchange.status == 429
    assert exchange.json["error"]["code"] == "rate_limit_exceeded"
    assert exchange.head_lines("retry-after") == ["2"]
    assert sim.chat(knobs="status=400,code=context_length_exceeded").json["error"]["code"] == "context_length_exceeded"
    assert sim.chat(knobs="status=201", stream=stream).status == 201


def test_the_error_rate_is_a_repeatable_sequence(make_sim: Callable[..., Any]) -> None:
    def statuses(sim: Any) -> list[int]:
        return [sim.chat(knobs="error_rate=0.3,status=503").status for _ in range(200)]

    sim = make_sim(seed=4)
    first = statuses(sim)
    assert set(first) == {200, 503}
    assert 30 <= first.count(503) <= 90
    assert statuses(make_sim(seed=4)) == first
    assert statuses(make_sim(seed=5)) != first
    sim.call("/sim/reset")
    assert statuses(sim) == first


def test_fail_lets_the_first_calls_of_a_model_fail(sim: Any) -> None:
    assert [sim.chat(model="a+fail-2").status for _ in range(4)] == [503, 503, 200, 200]
    assert sim.chat(model="b+fail-2+status-429").status == 429
    assert [sim.chat(model="c+fail-1+status-429", stream=True).status for _ in range(2)] == [429, 200]


def test_hang_never_answers_and_a_client_that_leaves_counts_at_once(sim: Any) -> None:
    exchange = sim.chat(model="sim/hang")
    sim.clock.advance(1e6)
    assert not exchange.status
    assert (sim.stats()["open"], sim.stats()["cancelled"]) == (1, 0)
    exchange.leave()
    assert (sim.stats()["open"], sim.stats()["cancelled"]) == (0, 1)


@pytest.mark.parametrize("knobs", ["latency=1s", "chunk=1s", "stall=2"])
def test_nothing_is_sent_after_the_client_left(sim: Any, knobs: str) -> None:
    exchange = sim.chat(knobs=knobs, stream=True)
    exchange.leave()
    sent = len(exchange.writes)
    sim.clock.advance(100)
    assert len(exchange.writes) == sent
    assert sim.stats()["cancelled"] == 1


def test_a_client_that_reads_as_fast_as_it_is_written_to_may_leave_in_between(sim: Any) -> None:
    exchange = sim.chat(knobs="tokens=10000", stream=True)
    assert 0 < len(exchange.writes) < 1000
    assert sim.stats()["open"] == 1
    exchange.leave()
    assert (sim.stats()["open"], sim.stats()["cancelled"]) == (0, 1)
    staying = sim.chat(knobs="tokens=10000", stream=True)
    while not staying.finished:
        sim.clock.advance(0)
    assert len(staying.events) > 10_000
    assert staying.events[-1] == "[DONE]"


def test_a_cut_behind_the_end_still_keeps_back_the_end(sim: Any) -> None:
    exchange = sim.chat(knobs="cut=1000", stream=True)
    sim.clock.advance(1)
    assert exchange.aborted
    assert b"[DONE]" not in exchange.sent


def test_names_that_clients_make_up_do_not_pile_up() -> None:
    names = ModelNames(Knobs())
    tracemalloc.start()
    try:
        for number in range(5_000):
            names.read(f"made-up-{number}")
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5_000, 25_000):
            names.read(f"made-up-{number}")
        assert tracemalloc.get_traced_memory()[0] < before + 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 3])
def test_cut_breaks_the_connection_after_that_many_events(sim: Any, count: int) -> None:
    exchange = sim.chat(model=f"sim/cut-{count}", stream=True)
    sim.clock.advance(1)
    assert exchange.aborted
    assert not exchange.finished
    assert len(exchange.writes) == count
    assert sim.stats()["cut"] == 1


def test_cut_breaks_a_whole_answer_in_its_middle_and_reset_before_its_start(sim: Any) -> None:
    whole = sim.chat(knobs="cut=1")
    sim.clock.advance(1)
    assert whole.aborted
    assert whole.sent == sim.chat().sent[: len(whole.sent)].replace(b"00000002", b"00000001")
    reset = sim.chat(knobs="reset")
    assert reset.aborted
    assert not reset.status


def test_a_stream_can_end_early_stall_or_turn_into_an_error(sim: Any) -> None:
    short = sim.chat(knobs="short=2", stream=True)
    assert short.finished
    assert len(short.events) == 2
    stalled = sim.chat(knobs="stall=2", stream=True)
    sim.clock.advance(1e6)
    assert len(stalled.events) == 2
    assert not stalled.finished
    failed = sim.chat(knobs="stream_error=2", stream=True)
    assert failed.finished
    assert failed.events[2]["error"]["type"] == "server_error"
    assert len(failed.events) == 3


def test_usage_can_be_missing_or_late(sim: Any) -> None:
    asked: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    assert "usage" not in sim.chat(knobs="usage=none").json
    assert all("usage" not in event for event in sim.chat(model="sim/no-usage", **asked).events[:-1])
    late = sim.chat(model="sim/late-usage-300ms", **asked)
    sim.clock.advance(0.299)
    assert late.events[-1]["choices"][0]["finish_reason"] == "stop"
    sim.clock.advance(0.001)
    assert late.events[-2]["usage"]["total_tokens"]
    assert late.events[-1] == "[DONE]"


def test_garbage_comes_as_asked(sim: Any) -> None:
    page = sim.chat(knobs="html")
    assert page.head_lines("content-type") == ["text/html; charset=utf-8"]
    assert page.sent.startswith(b"<!DOCTYPE html>")
    assert sim.chat(knobs="html,status=502").status == 502
    assert sim.chat(knobs="html", stream=True).sent.startswith(b"<!DOCTYPE html>")
    assert sim.chat(knobs="empty").sent == b""
    assert sim.chat(knobs="empty", stream=True).finished
    with pytest.raises(json.JSONDecodeError):
        assert sim.chat(knobs="half_json").json
    with pytest.raises(json.JSONDecodeError):
        assert sim.chat(knobs="half_json", stream=True).events
    assert sim.chat(knobs="wrong_type").head_lines("content-type") == ["text/plain"]
    assert sim.chat(knobs="wrong_type", stream=True).head_lines("content-type") == ["text/plain"]
    undone = sim.chat(knobs="no_done", stream=True)
    assert undone.finished
    assert undone.events[-1]["choices"][0]["finish_reason"] == "stop"


DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("encoding", DECODERS)
def test_answers_come_encoded_unasked_and_each_event_decodes_at_once(sim: Any, encoding: str) -> None:
    whole = sim.chat(knobs=f"encoding={encoding}")
    assert whole.head_lines("content-encoding") == [encoding]
    assert json.loads(DECODERS[encoding](whole.sent))["object"] == "chat.completion"
    streamed = sim.chat(knobs=f"encoding={encoding}", stream=True)
    assert DECODERS[encoding](streamed.sent).endswith(b"data: [DONE]\n\n")
    first = sim.chat(knobs=f"encoding={encoding},stall=1", stream=True)
    if encoding == "gzip":
        assert zlib.decompressobj(wbits=31).decompress(first.sent).endswith(b"\n\n")


def test_real_providers_headers_are_there_to_be_filtered(sim: Any) -> None:
    exchange = sim.chat(knobs="set_cookie")
    assert len(exchange.head_lines("set-cookie")) == 2
    for name in ("x-request-id", "openai-organization", "openai-processing-ms", "x-ratelimit-remaining-tokens"):
        assert exchange.head_lines(name), name
