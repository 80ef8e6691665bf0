"""Server-sent events as bytes (WHATWG HTML, section 9.2): where each event ends, and the data that it carries.

Events keep their exact bytes, so that a relayed stream can be read along the way without being changed.
"""

import re

from watchllm.wire.types import BadMessage

MAX_EVENT = 4 * 1024 * 1024
"""Default bound of one event, in bytes: one may hold a picture, or repeat a whole answer."""


class EventScanner:
    """Cuts a stream into raw events, each with the blank line that ends it. How the stream is split does not matter.

    Blank lines between events belong to the event after them. A blank line that ends in a carriage return is known to
    be whole only when the next byte has come.
    """

    __slots__ = ("_has_cr", "_max_event", "_pending", "_searched")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._pending = bytearray()
        self._searched = 0
        self._has_cr = False  # `_pending` may hold one: looked for only in what is new

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, in order.

        Raises BadMessage when an event is larger than the bound; the scanner is of no use afterwards.
        """
        # The usual case: a read holds one event that ends in "\n\n".
        if (
            not self._pending
            and data.find(b"\n\n") == len(data) - 2
            and 2 <= len(data) <= self._max_event
            and b"\r" not in data
        ):
            return [data]
        self._has_cr = b"\r" in data or (self._has_cr and bool(self._pending))
        self._pending += data
        return self._cut()

    def rest(self) -> bytes:
        """What was received after the last event that is known to be whole. At the end of the stream: an event that
        was cut short, or one whose blank line was a carriage return."""
        return bytes(self._pending)

    def _cut(self) -> list[bytes]:
        pending = self._pending
        events = []
        start = 0
        search = self._searched
        while (end := _end_of_event(pending, search, self._has_cr)) >= 0:
            if end - start > self._max_event:
                raise BadMessage(f"a server-sent event is larger than {self._max_event} bytes")
            events.append(bytes(pending[start:end]))
            start = search = end
        if len(pending) - start > self._max_event:
            raise BadMessage(f"a server-sent event is larger than {self._max_event} bytes")
        del pending[:start]
        # A terminator has at most four bytes, of which three may have come.
        self._searched = max(len(pending) - 3, 0)
        return events


def event_data(raw: bytes) -> bytes | None:
    """The data of a raw event: its `data` lines joined by line feeds; None when it has none (a comment, a ping)."""
    if raw.startswith(b"data: ") and b"\r" not in raw:
        first = raw.find(b"\n")
        if first == len(raw) - 2 and raw.endswith(b"\n"):
            return raw[6:-2]
    if raw.startswith(_BOM):
        raw = raw[3:]
    lines = []
    for line in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None


_BOM = b"\xef\xbb\xbf"

# Atomic groups, so that a single CR LF is never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


def _end_of_event(pending: bytearray, search: int, has_cr: bool) -> int:
    """The offset behind the first blank line from `search` on, or -1."""
    if not has_cr:
        at = pending.find(b"\n\n", search)
        return at + 2 if at >= 0 else -1
    match = _BLANK_LINE.search(pending, search)
    if match is None:
        return -1
    end = match.end()
    # A carriage return at the end of what has come may be half of a CR LF.
    return -1 if end == len(pending) and pending[end - 1] == 0x0D else end
