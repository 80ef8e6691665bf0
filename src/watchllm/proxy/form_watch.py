"""That a form names its model once: watched while it streams up, for projects that may use some models only.

Its beginning has named an allowed model. Another field `model` further on would be another model to a provider that
takes the last one, so the form is cut before that field is sent, and what the provider has is no whole form. Parsers
differ in what they take for a part and for its name; whatever not all of them read alike is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from watchllm.domain.errors import BadRequest, GatewayError

if TYPE_CHECKING:
    from watchllm.wire.types import Call

_LONGEST_HEAD = 8 * 1024
# Quoted pairs, percent signs, `name*` and parameters behind are read in more than one way.
_DISPOSITION = re.compile(
    rb"""\s*form-data\s*;\s*name\s*=\s*(?:"([^"\\%]*)"|([\w\[\].-]+))"""
    rb"""(?:\s*;\s*filename\s*=\s*(?:"[^"\\]*"|[\w.-]+))?(?:\s*;\s*filename\*\s*=\s*[^\s;"]+)?\s*""",
    re.IGNORECASE,
)


class FormWatch:
    """Reads a form's pieces in order, and gives back what may be sent: not yet a field whose head is not whole."""

    __slots__ = ("_delimiter", "_models", "_rest")

    def __init__(self, boundary: bytes) -> None:
        # Not only at the beginning of a line: in random content it is not found by chance.
        self._delimiter = b"--" + boundary
        self._models = 0
        self._rest = b""

    def feed(self, piece: bytes) -> bytes:
        """What may be sent now. Raises BadRequest on a second model, and on a field that can be read in two ways."""
        delimiter = self._delimiter
        data = self._rest + piece
        position = 0
        while (start := data.find(delimiter, position)) >= 0:
            position = start + len(delimiter)
            if len(data) - position < 2:
                return self._send_until(start, data)
            if data.startswith(b"--", position):
                position += 2
                continue
            # The line break behind the delimiter may be the first half of the blank line: a part without a head.
            end = data.find(b"\r\n\r\n", position)
            if (len(data) if end < 0 else end) - position > _LONGEST_HEAD:
                raise _unclear()
            if end < 0:
                return self._send_until(start, data)
            self._read_head(data[position:end])
            position = end + 4
        return self._send_until(max(position, len(data) - len(delimiter) + 1), data)

    def end(self) -> bytes:
        """The form is complete: the rest of it. Raises BadRequest when it ends within a field's head."""
        if self._rest.startswith(self._delimiter):
            raise _unclear()
        return self._rest

    def before(self, call: Call, refuse: Callable[[GatewayError], None]) -> WatchedForm:
        """What takes the further pieces and sends them on to `call`; `refuse` is told what may not be sent."""
        return WatchedForm(self, call, refuse)

    def _send_until(self, position: int, data: bytes) -> bytes:
        self._rest = data[position:]
        return data[:position]

    def _read_head(self, head: bytes) -> None:
        before, *lines = head.split(b"\r\n")
        names = [line.partition(b":") for line in lines]
        dispositions = [value for name, _, value in names if name.strip().lower() == b"content-disposition"]
        if before or len(dispositions) != 1 or any(_is_odd(line) for line in lines):
            raise _unclear()
        found = _DISPOSITION.fullmatch(dispositions[0])
        if found is None:
            raise _unclear()
        if (found[1] or found[2] or b"").strip(b" \t[]").lower() == b"model":
            self._models += 1
            if self._models > 1:
                raise BadRequest("The form has the field 'model' more than once.", param="model")


class WatchedForm:
    """Sends a form on while it is in order. After a piece that is not, nothing more: without it the rest could be
    a whole form again."""

    __slots__ = ("_call", "_refuse", "_refused", "_watch")

    def __init__(self, watch: FormWatch, call: Call, refuse: Callable[[GatewayError], None]) -> None:
        self._watch = watch
        self._call = call
        self._refuse = refuse
        self._refused = False

    def write(self, data: bytes) -> None:
        self._send(partial(self._watch.feed, data))

    def end(self) -> None:
        self._send(self._watch.end)
        if not self._refused:
            self._call.end()

    def _send(self, next_piece: Callable[[], bytes]) -> None:
        if self._refused:
            return
        try:
            piece = next_piece()
        except GatewayError as error:
            self._refused = True
            self._refuse(error)
            return
        if piece:
            self._call.write(piece)


def _is_odd(line: bytes) -> bool:
    """Whether a head's line is folded or holds half a line break."""
    return line[:1] in (b" ", b"\t", b"") or b"\r" in line or b"\n" in line


def _unclear() -> BadRequest:
    return BadRequest(
        "This project may use some models only, and a field of this form can be read in more than one way. Begin each "
        'with the one line Content-Disposition: form-data; name="…" (and filename="…"), without backslashes in them.'
    )
