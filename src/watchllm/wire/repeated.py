"""A request head that comes again on its connection: recognised by its bytes, without parsing it anew.

Clients send the very same head over and over, but for the length of the body. Parsing them anew was more than
half of what the wire cost a small request, for a result that is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchllm.wire.exchange import Exchange

if TYPE_CHECKING:
    from watchllm.wire.server_connection import ServerConnection

# Kept as long as its connection: ten thousand of these have to be affordable.
_LONGEST = 4096
_MOST_HEADERS = 48
_NEVER_REPEATED = frozenset((b"transfer-encoding", b"expect"))
# How often in a row a head may turn out to be a new one before its connection's heads are learned no more.
_LESSONS = 4


class HeadMemory:
    """The last head of one connection that may come again.

    `read` is what was received since the last message, while it may become something to learn from. Ask `recall` only
    between two messages, so that `read` begins with a head.
    """

    __slots__ = ("_known", "_lessons", "read")

    def __init__(self) -> None:
        self._known: RepeatedHead | None = None
        self._lessons = _LESSONS
        self.read: bytes | None = None

    def recall(self, connection: ServerConnection, data: bytes) -> tuple[Exchange, bytes] | None:
        """The request in `data` and its body, if its head is the known one and nothing is missing or behind it."""
        known = self._known
        if known is not None:
            found = known.match(connection, data)
            if found is not None:
                self._lessons = _LESSONS
                return found
        if self._lessons:
            self.read = data
        return None

    def learn(self, exchange: Exchange, read: bytes) -> None:
        """Remember the head of an accepted, complete request, if `read` holds it and nothing else."""
        self._lessons -= 1
        self._known = repeated_head(exchange, read) if self._lessons else None


class RepeatedHead:
    """What the parser made of a head, and the bytes around the digits of its Content-Length.

    Only equal bytes are taken for the same head, and only together with the whole body that they announce, so nothing
    is decided here that the parser has not decided before: whatever differs in one byte is the parser's to judge.
    """

    __slots__ = ("_after", "_before", "_headers", "_method", "_path", "_query", "_size")

    def __init__(self, exchange: Exchange, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._size = len(before)
        self._method = exchange.method
        self._path = exchange.path
        self._query = exchange.query
        self._headers = exchange.headers.copy()

    def match(self, connection: ServerConnection, data: bytes) -> tuple[Exchange, bytes] | None:
        """The request in `data` and its body, if that is this head with any body, whole and nothing behind it."""
        if not data.startswith(self._before):
            return None
        length, _, body = data[self._size :].partition(self._after)
        if not body or length != b"%d" % len(body):
            return None
        exchange = Exchange(connection, self._method, self._path, self._query)
        exchange.headers = headers = self._headers.copy()
        headers[b"content-length"] = length
        return exchange, body


def repeated_head(exchange: Exchange, data: bytes) -> RepeatedHead | None:
    """The head of a request for later comparison, None where it is not one to compare with.

    `exchange` is the first whose bytes are in `data`, complete and accepted; `data` began between two messages.
    """
    headers = exchange.headers
    length = headers.get(b"content-length", b"")
    end = data.find(b"\r\n\r\n") + 4
    if (
        length != b"%d" % len(exchange.body)
        or len(data) != end + len(exchange.body)
        or end > _LONGEST
        or len(headers) > _MOST_HEADERS
        or exchange.http_1_0
        or not exchange.keep_alive
        or not _NEVER_REPEATED.isdisjoint(headers)
    ):
        return None
    line = b"\r\ncontent-length: "
    at = data[:end].lower().find(line + length + b"\r\n")
    if at < 0:
        return None
    digits = at + len(line)
    return RepeatedHead(exchange, data[:digits], data[digits + len(length) : end])
