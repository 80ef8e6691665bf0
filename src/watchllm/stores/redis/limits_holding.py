"""What a process holds for one key, project or organization."""

from __future__ import annotations

from typing import NamedTuple

from watchllm.domain.money import Nanos


class Timing(NamedTuple):
    """Milliseconds: of a window, which is a minute but in tests; of a bucket of it; of a slice."""

    window: int = 60_000
    bucket: int = 500
    slice: int = 400


class Slice:
    """Requests of a minute that may be used here until `until`, of the loop's clock; they count already."""

    __slots__ = ("bucket", "left", "size", "until")

    def __init__(self, size: int, bucket: int, until: float) -> None:
        self.size = self.left = size
        self.bucket = bucket
        self.until = until


class Holding:
    """What is held for one key, project or organization: `nanos`, `requests` of the month, `places` of requests under
    way, and how much of it Redis was `told`. `used` is in use; the rest is spare."""

    __slots__ = (
        "asked_at",
        "drained",
        "is_near",
        "is_unused",
        "most_places",
        "nanos",
        "places",
        "requests",
        "seen",
        "seen_then",
        "slice",
        "told",
        "used_places",
        "used_requests",
    )

    def __init__(self) -> None:
        self.nanos: Nanos = 0
        self.requests = 0
        self.places = 0
        self.told = (0, 0, 0, 0, 0)
        self.used_requests = 0
        self.used_places = 0
        self.most_places = 0
        self.drained = 0
        self.is_near = False
        """Whether little was left of the places or of the month's requests: then nothing is kept to spare."""
        self.slice: Slice | None = None
        self.asked_at = 0.0
        """When a slice was last asked for, and how many requests were made since."""
        self.seen = 0
        self.is_unused = False
        """Whether it was not used since it was last asked if it was; what was seen then."""
        self.seen_then = 0

    def state(self) -> tuple[int, int, int, int, int]:
        """As the scripts take it: nanos, requests, places, spare requests, spare places."""
        return (
            self.nanos,
            self.requests,
            self.places,
            self.requests - self.used_requests,
            self.places - self.used_places,
        )

    def was_used(self) -> bool:
        """Whether it was used since this was last asked, or anything is held."""
        is_unused = self.is_unused and self.seen == self.seen_then
        self.is_unused, self.seen_then = True, self.seen
        return not is_unused or self.slice is not None or any(self.state()) or any(self.told)

    def granted(self, *, nanos: Nanos = 0, requests: int = 0, places: int = 0) -> None:
        """Redis has given it, and so knows of it."""
        self.take(nanos=nanos, requests=requests, places=places)
        told = self.told
        self.told = (told[0] + nanos, told[1] + requests, told[2] + places, *told[3:])

    def take(self, *, nanos: Nanos = 0, requests: int = 0, places: int = 0) -> None:
        """It is held from now on, and Redis has still to be told."""
        self.nanos += nanos
        self.requests += requests
        self.places += places
