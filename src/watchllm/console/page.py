"""What every page shares: its frame, who is looking, and how it is rendered."""

from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from watchllm.console.cookies import SESSION, browser_of, console_of, cookie, remember_browser, theme_of
from watchllm.control.users import User


@dataclass(frozen=True, slots=True)
class Frame:
    """What the base template needs. `user` None: nobody is signed in."""

    title: str
    theme: str
    form_token: str
    user: User | None


async def signed_in(request: Request) -> User | None:
    """The user of this request's session, if that is still one."""
    console = console_of(request)
    session = console.sessions.read(cookie(request, SESSION))
    if session is None:
        return None
    return await run_in_threadpool(console.plane.user, session.user_id)


def to_sign_in() -> Response:
    return RedirectResponse("/sign-in", 303)


def render(
    request: Request, template: str, title: str, context: Any = None, *, user: User | None = None, status: int = 200
) -> Response:
    """The page `template` with `context` as `page`."""
    console = console_of(request)
    session = console.sessions.read(cookie(request, SESSION))
    token = console.sessions.form_token(browser_of(request), session)
    frame = Frame(title, theme_of(request), token, user)
    text = console.templates.get_template(template).render(frame=frame, page=context)
    response = HTMLResponse(text, status)
    remember_browser(request, response)
    return response
