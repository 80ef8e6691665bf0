"""Sign in, sign out, and the choice of a theme: the forms that every page's frame has."""

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from watchllm.console.cookies import THEMES, console_of, forget_session, remember_session, remember_theme
from watchllm.console.forms import read_form
from watchllm.console.page import render, signed_in

# Longer ones are refused before they are hashed.
_MAX_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class SignIn:
    """`email` is what was typed before, `problem` why that did not do."""

    email: str = ""
    problem: str = ""


async def show(request: Request) -> Response:
    if await signed_in(request) is not None:
        return RedirectResponse("/", 303)
    return render(request, "sign_in.html", "Sign in", SignIn())


async def sign_in(request: Request) -> Response:
    """Ten failures in five minutes for one account from one address, then 429."""
    console = console_of(request)
    fields = (await read_form(request)).fields
    email, password = fields.get("email", "")[:320], fields.get("password", "")
    address = request.client.host if request.client else ""
    wait = console.throttle.begin(email, address)
    if wait is not None:
        problem = "Too many failed attempts. Wait a few minutes, then try again."
        response = render(request, "sign_in.html", "Sign in", SignIn(email, problem), status=429)
        response.headers["Retry-After"] = str(int(wait) + 1)
        return response
    async with console.hashing:
        user = await run_in_threadpool(console.plane.authenticate, email, password[:_MAX_PASSWORD])
    if user is None or len(password) > _MAX_PASSWORD:
        return render(request, "sign_in.html", "Sign in", SignIn(email, "E-mail or password is wrong."), status=401)
    console.throttle.succeeded(email, address)
    response = RedirectResponse("/", 303)
    remember_session(request, response, console.sessions.open(user.id))
    return response


async def sign_out(request: Request) -> Response:
    await read_form(request)
    response = RedirectResponse("/sign-in", 303)
    forget_session(request, response)
    return response


async def choose_theme(request: Request) -> Response:
    chosen = (await read_form(request)).fields.get("theme", "")
    if chosen not in THEMES:
        raise HTTPException(400, f"A theme is one of {', '.join(THEMES)}.")
    response = RedirectResponse("/", 303)
    remember_theme(request, response, chosen)
    return response


ROUTES = [
    Route("/sign-in", show, methods=["GET"]),
    Route("/sign-in", sign_in, methods=["POST"]),
    Route("/sign-out", sign_out, methods=["POST"]),
    Route("/theme", choose_theme, methods=["POST"]),
]
