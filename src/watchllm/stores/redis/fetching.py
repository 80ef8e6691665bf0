"""What was replaced while it was being fetched."""

from __future__ import annotations


class Stretch:
    """A stretch of time: how many of the fetches that began in it are under way, and what was replaced in it while any
    were, which they may bring as it was before. The next one begins when all of the last one's have ended, and that one
    is then forgotten: where much is fetched, some always are under way."""

    __slots__ = ("fetching", "outdated")

    def __init__(self) -> None:
        self.fetching = 0
        self.outdated: set[bytes] = set()
