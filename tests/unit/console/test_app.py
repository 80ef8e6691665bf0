"""What the console answers when its database is away or something fails."""

import asyncio
from typing import Any, cast

import httpx
import pytest

from watchllm.configuration import Configuration, load
from watchllm.console.app import create_app
from watchllm.console.proxies import ProxyStates
from watchllm.console.services import Console
from watchllm.console.sessions import Sessions
from watchllm.console.throttle import FailureThrottle
from watchllm.control.errors import ControlError, DatabaseUnusable, PlansUnusable, PricesUnusable, PublicationFailed
from watchllm.control.plane import ControlPlane
from watchllm.domain import tokens


class BrokenPlane:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def user(self, user_id: str) -> Any:
        raise self._error

    def token_in_force(self, digest: bytes, now_ms: int) -> Any:
        raise self._error


def answer(error: Exception, path: str) -> httpx.Response:
    """What a signed-in user with a token gets for `path` while every look-up raises `error`."""
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
            return await client.get(path, headers={"Authorization": f"Bearer {tokens.generate()}"})

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


def test_the_api_says_so_as_json_and_tells_nobody_where_the_database_is() -> None:
    refused = answer(DatabaseUnusable("the database postgresql://db.internal failed"), "/api/projects")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["error"]["code"] == "database_unavailable"
    assert "db.internal" not in refused.text


def test_a_failure_in_the_api_tells_nothing_of_the_inside_either() -> None:
    refused = answer(RuntimeError("a secret detail"), "/api/projects")
    assert (refused.status_code, refused.json()["error"]["code"]) == (500, "internal_error")
    assert "secret detail" not in refused.text
    assert refused.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/api/organization"])
@pytest.mark.parametrize("kind", [DatabaseUnusable, PublicationFailed, PlansUnusable, PricesUnusable])
def test_places_and_ids_are_for_the_log_alone(
    path: str, kind: type[ControlError], caplog: pytest.LogCaptureFixture
) -> None:
    page = answer(kind("redis://db.internal/0, which org_7 has"), path)
    assert page.status_code == (kind.status if path != "/" or kind is DatabaseUnusable else 500)
    assert not [word for word in ("db.internal", "org_7") if word in page.text]
    if path != "/" or kind is DatabaseUnusable:
        assert f"{kind.__name__}: redis://db.internal/0, which org_7 has" in caplog.text
