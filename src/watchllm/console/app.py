"""The console as an ASGI application: routes, static files, and what is said when something fails."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from watchllm.console.api.app import create_api
from watchllm.console.page import render, signed_in
from watchllm.console.pages import limits, limits_of, overview, sign_in
from watchllm.console.security import SecurityHeaders
from watchllm.console.services import Console
from watchllm.console.told import told
from watchllm.control.errors import DatabaseUnusable

_STATIC = Path(__file__).parent / "static"


def create_app(console: Console) -> ASGIApp:
    """The application over these services."""
    app = Starlette(
        routes=[
            *overview.ROUTES,
            *limits.ROUTES,
            *limits_of.ROUTES,
            *sign_in.ROUTES,
            Route("/health", _health, methods=["GET"]),
            Mount("/api", create_api(console)),
            Mount("/static", _Static(directory=_STATIC), name="static"),
        ],
        exception_handlers={HTTPException: _refused, DatabaseUnusable: _database_down, Exception: _failed},
    )
    app.state.console = console
    return SecurityHeaders(app, secure=console.secure)


class _Static(StaticFiles):
    """Asked again at each use (`304` when unchanged): after an upgrade nobody sees the old style sheet."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "There is no such page." if error.status_code == 404 else error.detail
    user = await signed_in(request)
    response = render(request, "error.html", f"Error {error.status_code}", detail, user=user, status=error.status_code)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _database_down(request: Request, error: Exception) -> Response:
    assert isinstance(error, DatabaseUnusable)
    return render(request, "error.html", "Database not available", told(error), status=503)


async def _failed(request: Request, error: Exception) -> Response:
    # The server logs the traceback; what it says is not for everybody's eyes.
    detail = "The console could not build this page. Its log says why."
    return render(request, "error.html", "Error 500", detail, status=500)
