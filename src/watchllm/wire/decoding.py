"""Content codings taken off a body as it arrives, in pieces of bounded size: what is not asked for is not inflated, so
that a bomb costs its reader nothing that the reader did not take. The codecs load when an answer first needs one."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from watchllm.wire.types import BadMessage

if TYPE_CHECKING:
    import zlib

PIECE: Final = 64 * 1024
"""Bytes that one `read` gives at most (brotli may overshoot by one block of its own)."""


class Decoder(Protocol):
    def feed(self, data: bytes) -> None:
        """Take encoded bytes; nothing is decoded yet."""
        ...

    def read(self) -> bytes:
        """The next decoded piece, empty when more input is needed. Raises BadMessage when the stream is broken."""
        ...

    def finish(self) -> None:
        """All input was fed and read. Raises BadMessage when the stream is cut short."""
        ...


def decoder_for(coding: bytes) -> Decoder | None:
    """A decoder for a `Content-Encoding` value, None when there is nothing to take off or the coding is unknown (the
    answer is then passed on as it is, header and all). Stacked codings count as unknown."""
    name = coding.strip().lower()
    if name in (b"gzip", b"x-gzip"):
        return _Inflate(members=True)
    if name == b"deflate":
        return _Inflate(members=False)
    if name == b"br":
        return _Brotli()
    if name == b"zstd":
        return _Zstandard()
    return None


class _Coded:
    """Encoded input in slices. Small ones, because a codec copies what is left over at the end of each member or frame:
    a body of thousands of tiny members would otherwise cost the square of its length."""

    _SLICE: Final = 16 * 1024

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._input = b""

    def feed(self, data: bytes) -> None:
        for start in range(0, len(data), self._SLICE):
            self._queue.append(data[start : start + self._SLICE])

    def _more(self) -> bool:
        """Whether there is input, taking the next slice if the last one is used up."""
        if not self._input and self._queue:
            self._input = self._queue.popleft()
        return bool(self._input)


class _Inflate(_Coded):
    """gzip (any number of members) and deflate (with zlib's header or, as some servers send it, without)."""

    def __init__(self, *, members: bool) -> None:
        import zlib

        super().__init__()
        self._zlib = zlib
        self._members = members
        self._stream: zlib._Decompress | None = None
        self._full = False  # the last piece was as large as allowed: zlib may hold more

    def read(self) -> bytes:
        while self._full or self._more():
            stream = self._stream
            if stream is None:
                if not self._members and len(self._input) < 2:  # too short to tell zlib's header from raw deflate
                    if not self._queue:
                        return b""
                    self._input += self._queue.popleft()
                stream = self._stream = self._zlib.decompressobj(self._window())
            try:
                piece = stream.decompress(self._input, PIECE)
            except self._zlib.error as error:
                raise BadMessage(f"broken content coding: {error}") from error
            self._full = len(piece) == PIECE and not stream.eof
            self._input = stream.unconsumed_tail
            if stream.eof and stream.unused_data:
                if not self._members:
                    raise BadMessage("data after the end of the content coding")
                self._input = stream.unused_data
                self._stream = None
            if piece:
                return piece
        return b""

    def finish(self) -> None:
        if self._input or (self._stream is not None and not self._stream.eof):
            raise BadMessage("the content coding is cut short")

    def _window(self) -> int:
        if self._members:
            return 31
        with_header = self._input[0] & 0x0F == 8 and int.from_bytes(self._input[:2], "big") % 31 == 0
        return 15 if with_header else -15


class _Brotli(_Coded):
    def __init__(self) -> None:
        import brotli

        super().__init__()
        self._error = brotli.error
        self._stream = brotli.Decompressor()
        self._started = False
        self._full = False  # the last piece reached the limit: there may be more without more input

    def read(self) -> bytes:
        stream = self._stream
        try:
            while True:
                data = b""
                if not self._full and stream.can_accept_more_data():
                    if not self._more():
                        return b""
                    data, self._input = self._input, b""
                    self._started = True
                piece: bytes = stream.process(data, output_buffer_limit=PIECE)
                self._full = len(piece) >= PIECE
                if piece:
                    return piece
        except self._error as error:
            raise BadMessage(f"broken content coding: {error}") from error

    def finish(self) -> None:
        if self._started and not self._stream.is_finished():
            raise BadMessage("the content coding is cut short")


class _Zstandard(_Coded):
    """zstd, any number of frames. The window is bounded to 8 MiB, as RFC 9659 asks of senders."""

    _WINDOW_LOG: Final = 23

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        super().__init__()
        self._zstd = zstd
        self._stream: zstd.ZstdDecompressor | None = None

    def read(self) -> bytes:
        zstd = self._zstd
        while True:
            stream = self._stream
            if (stream is None or stream.eof or stream.needs_input) and not self._more():
                return b""
            if stream is None or stream.eof:
                stream = self._stream = zstd.ZstdDecompressor(
                    options={zstd.DecompressionParameter.window_log_max: self._WINDOW_LOG}
                )
            data, self._input = (self._input, b"") if stream.needs_input else (b"", self._input)
            try:
                piece = stream.decompress(data, PIECE)
            except zstd.ZstdError as error:
                raise BadMessage(f"broken content coding: {error}") from error
            if stream.eof:
                self._input = stream.unused_data
            if piece:
                return piece

    def finish(self) -> None:
        if self._stream is not None and not self._stream.eof:
            raise BadMessage("the content coding is cut short")
