"""The console's three cookies: the session, the browser's random value for form tokens, and the theme."""

import secrets

from starlette.requests import Request
from starlette.responses import Response

from watchllm.console.services import Console
from watchllm.console.sessions import SESSION_SECONDS

SESSION, BROWSER, THEME = "session", "browser", "theme"
THEMES = ("system", "light", "dark")
_YEAR_SECONDS = 365 * 86_400
_MAX_BROWSER = 64


def console_of(request: Request) -> Console:
    console = request.app.state.console
    assert isinstance(console, Console)
    return console


def cookie(request: Request, name: str) -> str | None:
    return request.cookies.get(_full_name(name, console_of(request).secure))


def browser_of(request: Request) -> str:
    """The browser's random value: the one it sent, else a new one, which `remember_browser` gives it."""
    value = getattr(request.state, BROWSER, None) or cookie(request, BROWSER)
    if not value or len(value) > _MAX_BROWSER:
        value = secrets.token_urlsafe(24)
    request.state.browser = value
    return str(value)


def theme_of(request: Request) -> str:
    value = cookie(request, THEME)
    return value if value in THEMES else THEMES[0]


def remember_browser(request: Request, response: Response) -> None:
    """Send the browser its random value unless it has it."""
    value = browser_of(request)
    if cookie(request, BROWSER) != value:
        _set(request, response, BROWSER, value, _YEAR_SECONDS)


def remember_session(request: Request, response: Response, value: str) -> None:
    _set(request, response, SESSION, value, SESSION_SECONDS)


def remember_theme(request: Request, response: Response, value: str) -> None:
    _set(request, response, THEME, value, _YEAR_SECONDS)


def forget_session(request: Request, response: Response) -> None:
    secure = console_of(request).secure
    response.delete_cookie(_full_name(SESSION, secure), path="/", secure=secure, httponly=True, samesite="lax")


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    secure = console_of(request).secure
    response.set_cookie(
        _full_name(name, secure), value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="lax"
    )


def _full_name(name: str, secure: bool) -> str:
    # The prefix makes browsers refuse such a cookie from a neighbouring domain or from plain HTTP.
    return f"{'__Host-' if secure else ''}watchllm_{name}"
