"""Reads the body of a request, and no more of it than may be."""

from starlette.exceptions import HTTPException
from starlette.requests import Request


async def read_body(request: Request, most: int, what: str) -> bytes:
    """At most `most` bytes. Raises HTTPException 413, which calls the body `what`."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise HTTPException(413, f"The {what} is too large.")
    return bytes(body)
