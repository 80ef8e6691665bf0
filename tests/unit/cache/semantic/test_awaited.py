"""Vectors that are waited for: once for each text, so many at a time, and for a look-up only so long."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy
import pytest

from watchllm.cache.semantic.awaited import BUSY, FAILED, SLOW, Awaited, Embedded, NotEmbedded

PROJECT, OTHER = b"p" * 16, b"o" * 16
VECTOR = numpy.array([1.0, 0.0], numpy.float32)


class Gate:
    """Embeds when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def embed(self, text: str) -> Embedded:
        self.asked.append(text)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return Embedded(VECTOR, 3)


def with_gate(test: Callable[[Gate, Awaited], Awaitable[None]], *, seconds: float, most_at_once: int = 8) -> None:
    async def live() -> None:
        gate = Gate()
        embedder = Awaited("model", "1", 2, gate.embed, seconds=seconds, most_at_once=most_at_once)
        await test(gate, embedder)
        embedder.close()

    asyncio.run(live())


def test_the_same_text_is_embedded_once_at_a_time() -> None:
    async def test(gate: Gate, embedder: Awaited) -> None:
        waiting = [asyncio.ensure_future(embedder.vector(text, PROJECT)) for text in ("a", "b", "a", "a")]
        await asyncio.sleep(0)
        gate.open.set()
        assert [vector is VECTOR for vector in await asyncio.gather(*waiting)] == [True] * 4
        assert gate.asked == ["a", "b"]
        await embedder.vector("a", PROJECT)
        assert gate.asked == ["a", "b", "a"]
        assert (embedder.counted["made"], embedder.tokens) == (3, 9)

    with_gate(test, seconds=10)


def test_projects_do_not_share_what_is_under_way() -> None:
    async def test(gate: Gate, embedder: Awaited) -> None:
        waiting = [asyncio.ensure_future(embedder.vector("a", project)) for project in (PROJECT, OTHER, OTHER)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*waiting)
        assert gate.asked == ["a", "a"]

    with_gate(test, seconds=10)


def test_a_look_up_gives_up_and_who_has_time_gets_what_it_began() -> None:
    async def test(gate: Gate, embedder: Awaited) -> None:
        with pytest.raises(NotEmbedded) as told:
            await embedder.vector("a", PROJECT)
        assert told.value.reason == SLOW
        assert embedder.problem == "model: a vector took longer than 1 ms"
        patient = asyncio.ensure_future(embedder.vector("a", PROJECT, patient=True))
        await asyncio.sleep(0)
        gate.open.set()
        assert await patient is VECTOR
        assert gate.asked == ["a"]
        assert embedder.problem is not None, "it came too late"

    with_gate(test, seconds=0.001)


def test_only_so_many_are_under_way() -> None:
    async def test(gate: Gate, embedder: Awaited) -> None:
        waiting = [asyncio.ensure_future(embedder.vector(text, PROJECT, patient=True)) for text in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(NotEmbedded) as told:
            await embedder.vector("c", PROJECT)
        assert told.value.reason == BUSY
        other = asyncio.ensure_future(embedder.vector("c", OTHER))
        joined = asyncio.ensure_future(embedder.vector("b", PROJECT))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*waiting, joined, other)
        assert gate.asked == ["a", "b", "c"]
        assert await embedder.vector("c", PROJECT) is VECTOR

    with_gate(test, seconds=10, most_at_once=4)


def test_what_goes_wrong_is_told_until_it_works() -> None:
    async def test(gate: Gate, embedder: Awaited) -> None:
        gate.open.set()
        gate.error = NotEmbedded(FAILED, "it is down")
        with pytest.raises(NotEmbedded):
            await embedder.vector("a", PROJECT)
        assert embedder.problem == "model: it is down"
        gate.error = ZeroDivisionError("a bug")
        with pytest.raises(ZeroDivisionError):
            await embedder.vector("a", PROJECT)
        assert embedder.problem == "ZeroDivisionError: a bug"
        assert embedder.counted[FAILED] == 2
        gate.error = None
        await embedder.vector("a", PROJECT)
        assert embedder.problem is None

    with_gate(test, seconds=10)
