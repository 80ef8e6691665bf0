"""Reads the form of a POST, and only of one that this console's own page sent from this browser.

Two checks, either of which alone would do: the browser says where the request comes from (`Sec-Fetch-Site`, `Origin`),
and the form carries the token that its page was given.
"""

from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from watchllm.console.bodies import read_body
from watchllm.console.cookies import BROWSER, browser_of, console_of, cookie
from watchllm.console.sessions import Session

TOKEN_FIELD = "form_token"  # noqa: S105 (a field's name)
_MAX_BYTES = 16 * 1024
_MAX_FIELDS = 20


class Form(NamedTuple):
    """The fields of a form, and the session of who sent it."""

    fields: dict[str, str]
    session: Session | None


async def read_form(request: Request, most: int = _MAX_BYTES) -> Form:
    """The form, at most `most` bytes. Raises HTTPException: 403 for a request from elsewhere, 413, 415 and 400 for one
    that is no form of ours."""
    console = console_of(request)
    if not _from_here(request, console.configuration.public_url):
        raise HTTPException(403, "This request came from another site. Open the console itself and try again.")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A form is expected.")
    body = await read_body(request, most, "form")
    try:
        fields = dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
    session = console.sessions.read(cookie(request, "session"))
    browser = cookie(request, BROWSER)
    if not browser or not console.sessions.is_form_token(fields.get(TOKEN_FIELD, ""), browser_of(request), session):
        raise HTTPException(403, "The page was too old, or cookies are off. Open the console again and retry.")
    return Form(fields, session)


def _from_here(request: Request, public_url: str | None) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True  # Not a browser's form; the token decides.
    place = urlsplit(origin).netloc.lower()
    allowed = {request.headers.get("host", "").lower()}
    if public_url:
        allowed.add(urlsplit(public_url).netloc.lower())
    return bool(place) and place in allowed
