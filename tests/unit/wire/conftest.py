"""Both event loops that the wire runs on."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop to run on: plain asyncio, and uvloop as in production."""
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory
