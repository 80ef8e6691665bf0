"""An answer on its way back through a translation: streams event by event as they come, whole answers as a whole."""

from __future__ import annotations

from typing import Any

from watchllm.domain.errors import ProviderFailed
from watchllm.providers.dialect import StreamTranslator, Untranslatable
from watchllm.providers.translation import between
from watchllm.proxy.approach import AnswerSink
from watchllm.proxy.upstream import MAX_ANSWER_BYTES
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage, Call, Headers, WireError

_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
_JSON = (b"content-type", b"application/json")


class TranslatedAnswer:
    """Implements `ResponseSink` for an answer in the dialect `of`; gives it to `sink` in the dialect `to`.

    `document` is the client's request, `streamed` whether it asked for a stream. `call` is ended where what comes
    cannot be read.
    """

    __slots__ = (
        "_body",
        "_call",
        "_document",
        "_head",
        "_of",
        "_request_id",
        "_sink",
        "_size",
        "_stream",
        "_to",
        "_wants",
    )

    def __init__(
        self,
        sink: AnswerSink,
        call: Call,
        to: str,
        of: str,
        document: dict[str, Any],
        request_id: str,
        *,
        streamed: bool,
    ) -> None:
        self._sink = sink
        self._call = call
        self._to = to
        self._of = of
        self._document = document
        self._request_id = request_id
        self._wants = streamed
        self._stream: list[tuple[EventScanner, StreamTranslator]] | None = None
        self._head: tuple[int, Headers] = (0, [])
        self._body: list[bytes] = []
        self._size = 0

    def on_response(self, status: int, headers: Headers) -> None:
        content_type = next((value for name, value in headers if name == b"content-type"), b"")
        if status == 200 and self._wants and content_type.lower().startswith(b"text/event-stream"):
            self._stream = [
                (EventScanner(), stage) for stage in between.stream_stages(self._to, self._of, self._document)
            ]
            self._sink.on_response(status, _of_type(headers, _EVENT_STREAM))
        else:
            self._head = status, headers

    def on_data(self, data: bytes) -> None:
        if self._stream is not None:
            self._relay(data)
            return
        self._size += len(data)
        if self._size <= MAX_ANSWER_BYTES:
            self._body.append(data)
            return
        self._call.cancel()
        self._sink.fail(ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes."))

    def on_complete(self) -> None:
        if self._stream is None:
            self._pass_whole()
            return
        try:
            told = _finished(self._stream)
        except BadMessage as error:
            self._sink.on_failure(error)
            return
        if told:
            self._sink.on_data(told)
        self._sink.on_complete()

    def on_failure(self, error: WireError) -> None:
        self._sink.on_failure(error)

    def _relay(self, data: bytes) -> None:
        assert self._stream is not None
        try:
            told = _fed(self._stream, data)
        except BadMessage as error:
            self._call.cancel()
            self._sink.on_failure(error)
            return
        if told:
            self._sink.on_data(told)

    def _pass_whole(self) -> None:
        status, headers = self._head
        body = b"".join(self._body)
        if status == 200:
            try:
                body = between.answer_in(self._to, self._of, body, self._document).body
            except Untranslatable as error:
                self._sink.fail(
                    ProviderFailed(f"The provider's answer cannot be told in the form that was asked for: {error}.")
                )
                return
        elif status >= 400:
            body = between.error_in(self._to, self._of, status, body, self._request_id)
        self._sink.on_response(status, _of_type(headers, _JSON))
        if body:
            self._sink.on_data(body)
        self._sink.on_complete()


def _fed(stages: list[tuple[EventScanner, StreamTranslator]], data: bytes) -> bytes:
    """What comes out of the last stage for `data`. Raises BadMessage."""
    for scanner, translator in stages:
        told = []
        for event in scanner.feed(data):
            content = event_data(event)
            if content is not None:
                told.append(translator.feed(content))
        data = b"".join(told)
        if not data:
            return b""
    return data


def _finished(stages: list[tuple[EventScanner, StreamTranslator]]) -> bytes:
    """What the stages still have to tell at the end of the stream, each fed with the rest of the one before."""
    rest = b""
    for at, (scanner, translator) in enumerate(stages):
        told = [_fed(stages[at : at + 1], rest)] if rest else []
        left = event_data(scanner.rest())
        if left is not None:
            told.append(translator.feed(left))
        told.append(translator.finish())
        rest = b"".join(told)
    return rest


def _of_type(headers: Headers, content_type: tuple[bytes, bytes]) -> Headers:
    return [content_type, *(line for line in headers if line[0] != b"content-type")]
