"""Whether the process lives, and whether all it depends on does; no key needed."""

from __future__ import annotations

import msgspec

from watchllm.proxy import egress
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services

DEGRADED = "degraded: "
"""A dependency whose state begins so needs an operator, but requests are answered as ever."""

WARMING = "warming"
"""The state of a dependency that is still being loaded, which no answer waits for."""


async def alive(services: Services, request: Request) -> None:
    """`GET /health`: 200 as long as the process answers."""
    request.settled = True
    _respond(request, 200, {"status": "ok"})


async def ready(services: Services, request: Request) -> None:
    """`GET /health/ready`: each dependency and its state; 503 when one is not `ok`, `warming` or only `degraded`."""
    request.settled = True
    dependencies = services.dependencies()
    good = all(state in ("ok", WARMING) or state.startswith(DEGRADED) for state in dependencies.values())
    status: dict[str, object] = {"status": "ready" if good else "not ready", "dependencies": dependencies}
    status["recorder_lag_seconds"] = services.recorder_lag()
    _respond(request, 200 if good else 503, status)


def _respond(request: Request, status: int, document: object) -> None:
    request.exchange.respond(status, egress.answer_head(request, egress.JSON), msgspec.json.encode(document))
