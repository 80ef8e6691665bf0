"""Signs that the events of a stream come twice, for the dialects that do not number them.

A single piece of text that came twice cannot be told from text that repeats itself. What can be told: an end that is
told twice, and a stream in which every piece comes as a pair.
"""

from typing import Any

FEWEST_PAIRS = 8
"""Fewer pieces of text may come as pairs by chance, as in "no, no"."""


class Pairs:
    """Watches the pieces of text of one stream, until the first that stands alone: look at `open` before feeding."""

    __slots__ = ("_count", "_half", "_last", "_varied", "open")

    def __init__(self) -> None:
        self._half: str | None = None
        self._last: str | None = None
        self._count = 0
        self._varied = False
        self.open = True
        """Whether every piece so far was one of a pair."""

    def take(self, piece: str) -> None:
        """Take in a piece that is not empty."""
        if self._half is None:
            self._half = piece
        elif self._half == piece:
            self._half = None
            self._count += 1
            self._varied = self._varied or (self._last is not None and self._last != piece)
            self._last = piece
        else:
            self.open = False

    @property
    def doubled(self) -> bool:
        """Whether all of the text came twice. One piece over and over is text that repeats itself."""
        return self.open and self._half is None and self._varied and self._count >= FEWEST_PAIRS


class Ends:
    """Watches the beginning and the end of one choice of a stream of chat chunks.

    Some vendors open a choice twice, some say `finish_reason` once more with the usage. A stream that does both, or
    whose last chunk comes twice as it is, comes in duplicate.
    """

    __slots__ = ("_last", "_openings")

    def __init__(self) -> None:
        self._openings = 0
        self._last: bytes | None = None

    def opens(self, delta: dict[str, Any]) -> None:
        """Take in a delta that names a role, in a chunk that does not finish."""
        self._openings += not any(value for field, value in delta.items() if field != "role")

    def finishes(self, data: bytes) -> bool:
        """Take in the data of a chunk with a `finish_reason`; whether this is the second time that it ended."""
        before, self._last = self._last, data
        return before is not None and (self._openings > 1 or before == data)
