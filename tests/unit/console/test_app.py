"""What the console answers when its database is away or something fails."""

import asyncio
from typing import Any, cast

import httpx

from watchllm.configuration import Configuration, load
from watchllm.console.app import create_app
from watchllm.console.proxies import ProxyStates
from watchllm.console.services import Console
from watchllm.console.sessions import Sessions
from watchllm.console.throttle import FailureThrottle
from watchllm.control.errors import DatabaseUnusable
from watchllm.control.plane import ControlPlane


class BrokenPlane:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def user(self, user_id: str) -> Any:
        raise self._error


def answer(error: Exception, path: str) -> httpx.Response:
    """What a signed-in user gets for `path` while every look-up raises `error`."""
    sessions = Sessions(bytes(32), lambda: 0.0)
    console = Console(
        plane=cast(ControlPlane, BrokenPlane(error)),
        configuration=load_nothing(),
        sessions=sessions,
        throttle=FailureThrottle(lambda: 0.0),
        token_throttle=FailureThrottle(lambda: 0.0),
        proxies=cast(ProxyStates, None),
        cache_totals=lambda: "unknown",
        published_version=lambda: 0,
        now=lambda: 0.0,
        secure=False,
    )
    transport = httpx.ASGITransport(create_app(console), raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            client.cookies.set("watchllm_session", sessions.open("usr_1"))
            return await client.get(path)

    return asyncio.run(ask())


def load_nothing() -> Configuration:
    return load({"home": "/nowhere"}, {})


def test_a_database_that_is_away_is_said_and_health_goes_on() -> None:
    page = answer(DatabaseUnusable("the database x failed; `watchllm doctor` says more"), "/")
    assert page.status_code == 503
    assert "watchllm doctor" in page.text
    assert "Traffic through the proxies goes on" in page.text
    assert answer(DatabaseUnusable("away"), "/health").status_code == 200


def test_a_failure_tells_nothing_of_the_inside_and_keeps_the_security_headers() -> None:
    page = answer(RuntimeError("a secret detail"), "/")
    assert page.status_code == 500
    assert "secret detail" not in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
