"""Calls whose request is sent whole, for one that waits for the answer and was named when they were made."""

from __future__ import annotations

from watchllm.wire.types import ResponseSink


class SentWhole:
    """What such a `wire.types.Call` is never asked for."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        raise RuntimeError("the body of this call is sent whole")

    def end(self) -> None:
        raise RuntimeError("the body of this call is sent whole")

    def pass_to(self, sink: ResponseSink) -> None:
        raise RuntimeError("who waits for the answer was named when the call was made")
