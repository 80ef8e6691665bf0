"""A stream as several readers share it."""

import pytest

from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.proxy import shared_stream
from watchllm.proxy.shared_stream import Piece, SharedStream
from watchllm.wire.sse import MAX_EVENT
from watchllm.wire.types import BadMessage

TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\n\n'
TEXT_ALONE = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


def stream(*, has_usage: bool = True) -> SharedStream:
    return SharedStream(StreamAssembler("generate"), has_usage=has_usage)


def feed(shared: SharedStream, data: bytes) -> None:
    piece = shared.feed(data)
    if piece is not None:
        shared.append(piece)


def everything(shared: SharedStream, *, include_usage: bool, position: int = 0) -> bytes:
    parts = []
    while position < shared.end:
        data, position = shared.read(position, include_usage=include_usage)
        parts.append(data)
    return b"".join(parts)


def test_who_asked_for_usage_gets_every_byte_and_who_did_not_gets_it_without() -> None:
    shared = stream()
    for data in (TEXT, LAST, USAGE, DONE):
        feed(shared, data)
    assert everything(shared, include_usage=True) == TEXT + LAST + USAGE + DONE
    assert everything(shared, include_usage=False) == TEXT_ALONE + LAST.replace(b',"usage":null', b"") + DONE


def test_usage_that_nobody_asked_for_but_the_provider_sends_stays() -> None:
    shared = stream(has_usage=False)
    feed(shared, TEXT + USAGE)
    assert everything(shared, include_usage=False) == TEXT + USAGE


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_bytes_are_the_provider_s_however_they_are_cut(size: int) -> None:
    shared = stream()
    body = TEXT * 3 + LAST + USAGE + DONE
    for at in range(0, len(body), size):
        feed(shared, body[at : at + size])
    assert shared.finish() is None
    assert everything(shared, include_usage=True) == body
    assert shared.ends_well
    assert shared.usage is not None
    assert shared.usage.total == 7
    assert shared.completion() is not None


def test_what_comes_after_the_last_whole_event_is_passed_on_at_the_end() -> None:
    shared = stream()
    feed(shared, TEXT + b"data: [DO")
    rest = shared.finish()
    assert rest == Piece(b"data: [DO", b"data: [DO")
    assert not shared.ends_well
    assert shared.completion() is None


def test_an_event_without_end_is_refused() -> None:
    shared = stream()
    for _ in range(MAX_EVENT // 65_536):
        assert shared.feed(b"x" * 65_536) is None
    with pytest.raises(BadMessage):
        shared.feed(b"x")


def test_reads_are_about_64_kib() -> None:
    shared = stream()
    for _ in range(10):
        shared.append(Piece(b"x" * 20_000, b""))
    data, position = shared.read(0, include_usage=True)
    assert (len(data), position) == (80_000, 4)
    assert shared.read(9, include_usage=True) == (b"x" * 20_000, 10)
    assert shared.read(10, include_usage=True) == (b"", 10)


def test_all_is_held_while_it_can_be_joined_and_then_only_what_somebody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_stream, "JOINABLE_BYTES", 100)
    monkeypatch.setattr(shared_stream, "MAX_LAG_BYTES", 200)
    monkeypatch.setattr(shared_stream, "_LEAST", 1)
    shared = stream()
    shared.append(Piece(b"a" * 100, b""))
    shared.trim(1)
    assert (shared.whole, shared.first) == (True, 0)
    shared.append(Piece(b"b", b""))
    assert not shared.whole
    shared.trim(1)
    assert (shared.first, shared.end) == (1, 2)
    assert shared.read(1, include_usage=True) == (b"b", 2)
    shared.append(Piece(b"c" * 199, b""))
    shared.append(Piece(b"d", b""))
    assert shared.overfull
    shared.trim(2)
    assert (shared.first, shared.end, shared.overfull) == (2, 4, False), "199 + 1 bytes are within the bound"
    shared.trim(4)
    assert (shared.first, shared.end, shared.whole) == (4, 4, False)


def test_crumbs_count_as_what_they_take() -> None:
    shared = stream()
    for _ in range(10_000):
        feed(shared, b":\n\n")
    assert not shared.whole
    shared.trim(shared.end)
    for _ in range(60_000):
        feed(shared, b":\n\n")
    assert not shared.overfull
    for _ in range(10_000):
        feed(shared, b":\n\n")
    assert shared.overfull
    shared.trim(shared.end)
    assert not shared.overfull
    assert shared._held == 0
