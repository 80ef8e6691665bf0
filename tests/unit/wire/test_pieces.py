"""A body in very many pieces is kept in few."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.flight import Trip
from watchllm.proxy.image_fetch import _Download
from watchllm.proxy.proof import Kept
from watchllm.proxy.translated import TranslatedAnswer
from watchllm.proxy.upstream import WholeAnswer
from watchllm.wire.client import _Collector
from watchllm.wire.pieces import FOLD_EVERY, fold

LARGE = 100 * 1024


def kept(pieces: list[bytes]) -> list[bytes]:
    result: list[bytes] = []
    for piece in pieces:
        result.append(piece)
        if len(result) % FOLD_EVERY == 0:
            fold(result)
    return result


def test_small_pieces_are_joined() -> None:
    pieces = [b"%d," % number for number in range(100_000)]
    result = kept(pieces)
    assert b"".join(result) == b"".join(pieces)
    assert len(result) < 2 * FOLD_EVERY


def test_large_pieces_are_left_as_they_are() -> None:
    large = [bytes(LARGE) for _ in range(FOLD_EVERY)]
    result = kept([*large, b"x"])
    assert all(a is b for a, b in zip(result, large, strict=False))
    assert result[-1] == b"x"


def test_an_answer_on_trial_is_kept_in_few_pieces() -> None:
    answer = Kept()
    answer.on_response(200, [])
    for _ in range(100_000):
        answer.on_data(b"ab")
    assert len(answer._pieces) < 2 * FOLD_EVERY
    assert answer.whole().body == b"ab" * 100_000


class Sink:
    """Notes what comes."""

    def __init__(self) -> None:
        self.body = b""

    def on_response(self, _status: int, _headers: Any) -> None: ...

    def on_data(self, data: bytes) -> None:
        self.body += data


@pytest.mark.parametrize("count", [FOLD_EVERY - 1, FOLD_EVERY, FOLD_EVERY + 1])
def test_and_passed_on_whole(count: int) -> None:
    answer, sink = Kept(), Sink()
    pieces = [b"%d," % number for number in range(count)]
    answer.on_response(200, [])
    for piece in pieces:
        answer.on_data(piece)
    answer.release(sink)  # type: ignore[arg-type]
    assert sink.body == b"".join(pieces)


NOBODY = cast(Any, None)


def flight() -> Any:
    trip = Trip(streamed=False)
    trip.loop.close()
    return trip.flight


SINKS: dict[str, Callable[[], Any]] = {
    "whole": lambda: WholeAnswer(NOBODY, lambda: None),
    "fetched": lambda: _Collector(cast(Any, SimpleNamespace(create_future=lambda: None)), 1 << 20),
    "picture": lambda: _Download(NOBODY, 1 << 20, lambda _size: None),
    "translated": lambda: TranslatedAnswer(
        NOBODY, NOBODY, "chat", "messages", {}, "", streamed=False, on_loss=lambda: None
    ),
    "shared": flight,
}


@pytest.mark.parametrize("kind", SINKS)
def test_whoever_gathers_an_answer_keeps_few_pieces(kind: str) -> None:
    sink = SINKS[kind]()
    for _ in range(100_000):
        sink.on_data(b"ab")
    gathered = sink._pieces if hasattr(sink, "_pieces") else sink._body
    assert len(gathered) < 2 * FOLD_EVERY
    assert b"".join(gathered) == b"ab" * 100_000
