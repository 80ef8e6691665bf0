"""What the simulator saw: the latest requests as received and the counts that tests ask for."""

import base64
from collections import deque
from hashlib import sha256
from typing import Any

_KEPT_BODY_BYTES = 64 * 1024


class Received:
    """One request as it came in. `outcome` becomes answered, cancelled, cut or stalled; `status` stays 0 without a
    head."""

    __slots__ = ("body", "body_bytes", "digest", "headers", "method", "number", "outcome", "path", "query", "status")

    def __init__(
        self, number: int, method: bytes, path: bytes, query: bytes, headers: dict[bytes, bytes], body: bytes
    ) -> None:
        self.number = number
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body_bytes = len(body)
        self.digest = b""
        if len(body) > _KEPT_BODY_BYTES:
            self.digest = sha256(body).digest()
            body = body[:_KEPT_BODY_BYTES]
        self.body = body
        self.status = 0
        self.outcome = "open"

    def described(self) -> dict[str, Any]:
        """As JSON; a body that is not UTF-8 is given as `body_base64`."""
        shown: dict[str, Any] = {
            "number": self.number,
            "method": self.method.decode("latin-1"),
            "path": self.path.decode("latin-1"),
            "query": self.query.decode("latin-1"),
            "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers.items()},
            "body_bytes": self.body_bytes,
            "body_sha256": (self.digest or sha256(self.body).digest()).hex(),
            "truncated": bool(self.digest),
            "status": self.status,
            "outcome": self.outcome,
        }
        try:
            shown["body"] = self.body.decode()
        except UnicodeDecodeError:
            shown["body_base64"] = base64.b64encode(self.body).decode()
        return shown


class Ledger:
    """Counts since the start or the last reset. `open` requests are those still waiting for the end of their answer."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.open: set[Received] = set()
        self.clear()

    def clear(self) -> None:
        """Forget everything but the requests that are still open."""
        self.requests: deque[Received] = deque(maxlen=self._keep)
        self.calls = 0
        self.by_path: dict[bytes, int] = {}
        self.peak_open = len(self.open)
        self.cancelled = 0
        self.cut = 0
        self.errors = 0

    def enter(self, received: Received) -> None:
        """The request will be answered later."""
        self.open.add(received)
        self.peak_open = max(self.peak_open, len(self.open))

    def leave(self, received: Received, outcome: str) -> None:
        """The request is over."""
        self.open.discard(received)
        received.outcome = outcome
        if outcome == "cancelled":
            self.cancelled += 1
        elif outcome == "cut":
            self.cut += 1

    def stats(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "by_path": {path.decode("latin-1"): count for path, count in self.by_path.items()},
            "open": len(self.open),
            "peak_open": self.peak_open,
            "cancelled": self.cancelled,
            "cut": self.cut,
            "errors": self.errors,
        }
