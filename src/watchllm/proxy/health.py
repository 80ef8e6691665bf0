"""Whether the process lives, and whether all it depends on does; no key needed.

Anybody may ask, so of each dependency only a word is told: reasons name paths, hosts and users, and are for operators,
on their own listener.
"""

from __future__ import annotations

import msgspec

from watchllm.proxy import egress
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services

OK = "ok"
_FAILED = "failed"
_DEGRADED = "degraded"
DEGRADED = f"{_DEGRADED}: "
"""A dependency whose state begins so needs an operator, but requests are answered as ever."""

WARMING = "warming"
"""The state of a dependency that is still being loaded, which no answer waits for."""


async def alive(services: Services, request: Request) -> None:
    """`GET /health`: 200 as long as the process answers."""
    request.settled = True
    _respond(request, 200, {"status": "ok"})


async def ready(services: Services, request: Request) -> None:
    """`GET /health/ready`: each dependency as `ok`, `warming`, `degraded` or `failed`; 503 when one has failed."""
    request.settled = True
    dependencies = {name: _word_for(state) for name, state in services.dependencies().items()}
    words = set(dependencies.values())
    good = _FAILED not in words
    status: dict[str, object] = {"status": "ready" if good else "not ready", "dependencies": dependencies}
    status["recorder_lag_seconds"] = services.recorder_lag()
    if not words <= {OK, WARMING}:
        status["reasons"] = "`watchllm doctor` on the proxy's host tells them"
    _respond(request, 200 if good else 503, status)


def _word_for(state: str) -> str:
    if state in (OK, WARMING):
        return state
    return _DEGRADED if state.startswith(DEGRADED) else _FAILED


def _respond(request: Request, status: int, document: object) -> None:
    request.exchange.respond(status, egress.answer_head(request, egress.JSON), msgspec.json.encode(document))
