"""The engine is loaded when the socket listens, in a thread, and nothing waits for it."""

import asyncio
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from watchllm.cache.semantic.engine import Engine
from watchllm.proxy.semantic.warming import CannotLoad, Semantic

HEAVY = ("numpy", "faiss", "tokenizers", "watchllm.cache.semantic")


class FakeEngine:
    """Stands for the engine where only its coming and going matters."""

    def __init__(self) -> None:
        self.followed = self.closed = False
        self.wrong: str | None = None
        self.is_warming = False

    def follow(self, _loop: object) -> None:
        self.followed = True

    def health(self) -> str | None:
        return self.wrong

    def close(self) -> None:
        self.closed = True


def opening(engine: FakeEngine) -> Any:
    return lambda: cast(Engine, engine)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def looked_up(semantic: Semantic) -> Any:
    request = SimpleNamespace(looked=None)
    nothing: Any = None
    assert semantic.look_up(nothing, cast(Any, SimpleNamespace(request=request))) is None
    return request.looked


def test_what_a_start_needs_loads_nothing_of_it() -> None:
    code = f"import sys, watchllm.compose.proxy; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_look_up_before_it_is_there_is_a_miss_that_loads_nothing_on_the_loop() -> None:
    code = (
        "import asyncio, sys, threading\nfrom types import SimpleNamespace\nimport watchllm.compose.proxy\n"
        "from watchllm.proxy.semantic.warming import Semantic\n"
        "async def main():\n"
        "    go = threading.Event()\n"
        "    def opening():\n        go.wait()\n        raise SystemExit\n"
        "    semantic = Semantic(asyncio.get_running_loop(), opening)\n"
        "    request = SimpleNamespace(looked=None)\n"
        "    semantic.look_up(None, SimpleNamespace(request=request))\n"
        "    semantic.keep_later(None, request, None, None, None, b'', b'')\n"
        f"    print(request.looked.outcome, semantic.state, [name for name in {HEAVY} if name in sys.modules])\n"
        "    go.set()\n    semantic.close()\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "warming warming []\n", done.stderr


def test_it_is_loaded_once_and_closed() -> None:
    async def live() -> None:
        engine, opened = FakeEngine(), []

        def opening_slowly() -> Engine:
            opened.append(threading.get_ident())
            return cast(Engine, engine)

        semantic = Semantic(asyncio.get_running_loop(), opening_slowly)
        assert semantic.state is None
        semantic.start_if_used()
        semantic.start()
        await until(lambda: semantic.engine is not None)
        assert (semantic.state, engine.followed, len(opened)) == ("ok", True, 1)
        assert opened[0] != threading.get_ident()
        engine.wrong = "full"
        assert semantic.state == "degraded: full"
        semantic.close()
        assert engine.closed

    asyncio.run(live())


def test_what_nobody_uses_is_not_loaded_until_somebody_does() -> None:
    async def live() -> None:
        used = threading.Event()
        semantic = Semantic(asyncio.get_running_loop(), opening(FakeEngine()), used.is_set)
        semantic.start_if_used()
        await until(lambda: semantic.state is None)
        assert looked_up(semantic).outcome == "warming"
        await until(lambda: semantic.engine is not None)
        semantic.close()

    asyncio.run(live())


def test_why_it_cannot_be_loaded_is_told_and_look_ups_are_misses() -> None:
    def failing() -> Engine:
        raise CannotLoad("its file is missing")

    async def live() -> None:
        semantic = Semantic(asyncio.get_running_loop(), failing)
        semantic.start()
        await until(lambda: semantic.state != "warming")
        assert semantic.state == "degraded: look-ups by meaning are misses: its file is missing"
        assert (looked_up(semantic).outcome, looked_up(semantic).reason) == ("warming", "unavailable")
        semantic.close()

    asyncio.run(live())


def test_a_bug_is_reported_and_costs_a_hit() -> None:
    async def live() -> None:
        loop = asyncio.get_running_loop()
        reported: list[Any] = []
        loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
        semantic = Semantic(loop, opening(FakeEngine()))
        semantic.start()
        await until(lambda: semantic.engine is not None)
        error = ZeroDivisionError()

        def breaking(*_arguments: object) -> None:
            raise error

        semantic._stage = cast(Any, SimpleNamespace(look_up=breaking))
        services = SimpleNamespace(counters=SimpleNamespace(internal_errors=0))
        request = SimpleNamespace(looked=None, id="req_1")
        assert semantic.look_up(cast(Any, services), cast(Any, SimpleNamespace(request=request))) is None
        assert (services.counters.internal_errors, reported) == (1, [error])
        assert cast(Any, request.looked).reason == "failed"
        semantic.close()

    asyncio.run(live())


@pytest.mark.parametrize("told", [True, False])
def test_closing_while_it_is_loaded_closes_what_was_opened(told: bool) -> None:
    async def live() -> None:
        go, engine = threading.Event(), FakeEngine()

        def opening_late() -> Engine:
            go.wait()
            return cast(Engine, engine)

        semantic = Semantic(asyncio.get_running_loop(), opening_late)
        semantic.start()
        go.set()
        if told:
            await until(lambda: semantic.engine is not None)
        semantic.close()
        await asyncio.sleep(0)
        assert engine.closed
        assert semantic.engine is None

    asyncio.run(live())
