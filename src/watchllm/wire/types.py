"""The words that server and client share."""

from typing import Protocol, TypeAlias

import msgspec

Headers: TypeAlias = list[tuple[bytes, bytes]]
"""Header lines in the order received or to be sent; names in lower case when received."""


class Origin(msgspec.Struct, frozen=True):
    """Where a request goes. `trusted` origins were named by the operator and may have any address; others must have a
    public one, checked on the address really connected to."""

    scheme: str
    host: str
    port: int
    trusted: bool = False


class Timeouts(msgspec.Struct, frozen=True):
    """Bounds in seconds: to connect (TLS included), to the first byte of the answer's head after the request was sent,
    between two reads of the body, and over all."""

    connect: float = 10.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 600.0


class WireError(Exception):
    """Base of what can go wrong on the way to a peer.

    WireError
    ├── ConnectFailed        no connection: refused, DNS, TLS (nothing was sent)
    │   └── AddressRefused   the address is private and the origin is not trusted
    ├── TimedOut             `phase` is connect, first_byte, idle or total, or what else its caller bounds
    ├── PeerClosed           the connection ended before the message did
    ├── BadMessage           what came is not HTTP, or exceeds a bound
    └── PoolFull             the origin's connections and its queue are all taken
    """


class ConnectFailed(WireError):
    pass


class AddressRefused(ConnectFailed):
    pass


class TimedOut(WireError):
    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"{phase} took longer than {seconds:g} s")
        self.phase = phase


class PeerClosed(WireError):
    pass


class BadMessage(WireError):
    pass


class PoolFull(WireError):
    pass


class ResponseSink(Protocol):
    """Receives an answer as it arrives, on the event loop. After `on_complete` or `on_failure` nothing more comes;
    after `Call.cancel` nothing comes at all."""

    def on_response(self, status: int, headers: Headers) -> None:
        """The final head (1xx are swallowed)."""
        ...

    def on_data(self, data: bytes) -> None:
        """A piece of the body, transfer and unasked content encodings removed; never empty."""
        ...

    def on_complete(self) -> None: ...

    def on_failure(self, error: WireError) -> None: ...


class Call(Protocol):
    """A request under way."""

    @property
    def is_sent(self) -> bool:
        """Whether it has been given to a connection and is not over: before that, it waits for one or has it opened."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece of a streamed request body (only when sent with `body=None, upload=...`)."""
        ...

    def end(self) -> None:
        """The streamed request body is complete."""
        ...

    def pause(self) -> None:
        """Stop reading from the peer (back-pressure); the idle time-out does not run meanwhile."""
        ...

    def resume(self) -> None: ...

    def cancel(self) -> None:
        """Forget the call and close its socket. Idempotent; harmless after the end."""
        ...

    def pass_to(self, sink: ResponseSink) -> None:
        """Let all that comes from now on go to another sink; for a sink to call that has looked at the head."""
        ...
