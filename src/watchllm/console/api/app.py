"""The management API as an ASGI application: its routes from the table of operations, and how all are answered.

Who asks is known before anything of the body is read.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watchllm.console.api import failures
from watchllm.console.api.asked import Asked, read_document
from watchllm.console.api.caller import TokenGate
from watchllm.console.api.openapi import document
from watchllm.console.api.operations import PATHS, Operation
from watchllm.console.api.written import written
from watchllm.console.services import Console
from watchllm.control.errors import ControlError
from watchllm.control.organization_plane import OrganizationPlane
from watchllm.domain.errors import GatewayError
from watchllm.domain.setting_values import InvalidSetting

_WITH_BODY = ("POST", "PATCH")


def create_api(console: Console) -> Starlette:
    """The application over these services, to be mounted at `/api`."""
    gate = TokenGate(console.plane, console.token_throttle, console.now)
    routes = [
        Route(path, _answering(console, gate, operations), methods=list(operations))
        for path, operations in PATHS.items()
    ]
    handlers = dict.fromkeys((GatewayError, ControlError, InvalidSetting, HTTPException, Exception), failures.answered)
    api = Starlette(routes=[Route("/openapi.json", _described, methods=["GET"]), *routes], exception_handlers=handlers)
    # A redirect would be sent to whoever asks, and a client would send its token after it.
    api.router.redirect_slashes = False
    return api


def _answering(
    console: Console, gate: TokenGate, operations: Mapping[str, Operation]
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        address = request.client.host if request.client else ""
        token = await gate.caller(request.headers.get("authorization"), address)
        body = await read_document(request) if request.method in _WITH_BODY else {}
        asked = Asked(
            own=OrganizationPlane(console.plane.acting_as(token.actor), token.organization_id, token.role),
            id=request.path_params.get("id", ""),
            query=request.query_params,
            body=body,
            now=console.now(),
        )
        return written(await run_in_threadpool(operation.run, asked), operation.status)

    return answer


async def _described(request: Request) -> Response:
    return written(document())
