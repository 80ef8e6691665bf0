"""The body of a request that offers to go on in another protocol, which is not taken up.

Java's own client sends such an offer (`Upgrade: h2c`) with every first request over clear text, and the body behind it
as usual. The parser believes that what follows such a head is the other protocol and reads no body at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

if TYPE_CHECKING:
    from watchllm.wire.server_connection import ServerConnection


def body_parser(connection: ServerConnection, headers: dict[bytes, bytes]) -> httptools.HttpRequestParser:
    """A parser that has read a head of the same framing and goes on with the body; of what comes behind that, nothing
    is a request any more."""
    parser = httptools.HttpRequestParser(_BodyOnly(connection))
    name = b"transfer-encoding" if b"transfer-encoding" in headers else b"content-length"
    parser.feed_data(b"POST / HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, headers[name]))
    return parser


class _BodyOnly:
    """The callbacks of a parser that are for one body."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def on_body(self, data: bytes) -> None:
        self._connection.on_body(data)

    def on_message_complete(self) -> None:
        self._connection.on_message_complete()
