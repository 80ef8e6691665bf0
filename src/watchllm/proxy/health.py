"""Whether the process lives, and whether all it depends on does; no key needed."""

from __future__ import annotations

import msgspec

from watchllm.proxy import egress
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services


async def alive(services: Services, request: Request) -> None:
    """`GET /health`: 200 as long as the process answers."""
    request.settled = True
    _respond(request, 200, {"status": "ok"})


async def ready(services: Services, request: Request) -> None:
    """`GET /health/ready`: each dependency and its state; 503 when one is not `ok`."""
    request.settled = True
    dependencies = services.dependencies()
    good = all(state == "ok" for state in dependencies.values())
    status = {"status": "ready" if good else "not ready", "dependencies": dependencies}
    _respond(request, 200 if good else 503, status)


def _respond(request: Request, status: int, document: object) -> None:
    request.exchange.respond(status, egress.answer_head(request, egress.JSON), msgspec.json.encode(document))
