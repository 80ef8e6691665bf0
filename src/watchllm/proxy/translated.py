"""An answer on its way back through a translation: streams event by event as they come, whole answers as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from watchllm.domain.errors import ProviderFailed
from watchllm.providers.dialect import StreamTranslator, Untranslatable
from watchllm.providers.translation import between
from watchllm.proxy.approach import AnswerSink, Endable
from watchllm.proxy.bad_answers import no_stream, wrong_with
from watchllm.proxy.upstream import MAX_ANSWER_BYTES, Answer
from watchllm.wire.pieces import FOLD_EVERY, fold
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage, Headers, WireError

_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
_JSON = (b"content-type", b"application/json")


class TranslatedAnswer:
    """Implements `ResponseSink` for an answer in the dialect `of`; gives it to `sink` in the dialect `to`.

    `document` is the client's request, `streamed` whether it asked for a stream. `call` is ended where what comes
    cannot be read. `on_loss` is called, before the answer's end is told, where the translation says less than the
    original.
    """

    __slots__ = (
        "_body",
        "_call",
        "_created",
        "_document",
        "_head",
        "_of",
        "_on_loss",
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
        call: Endable,
        to: str,
        of: str,
        document: dict[str, Any],
        request_id: str,
        *,
        streamed: bool,
        on_loss: Callable[[], None],
        created: int = 0,
    ) -> None:
        self._sink = sink
        self._call: Endable | None = call
        self._to = to
        self._of = of
        self._document = document
        self._request_id = request_id
        self._wants = streamed
        self._on_loss = on_loss
        self._created = created
        self._stream: _Stages | None = None
        self._head: tuple[int, Headers] = (0, [])
        self._body: list[bytes] = []
        self._size = 0

    def on_response(self, status: int, headers: Headers) -> None:
        content_type = next((value for name, value in headers if name == b"content-type"), b"")
        if status == 200 and self._wants and content_type.lower().startswith(b"text/event-stream"):
            self._stream = [
                (EventScanner(), stage)
                for stage in between.stream_stages(
                    self._to, self._of, self._document, created=self._created, request_id=self._request_id
                )
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
            if len(self._body) % FOLD_EVERY == 0:
                fold(self._body)
            return
        self._end_call()
        self._sink.fail(ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes."))

    def on_complete(self) -> None:
        self._call = None  # which refers to this
        if self._stream is None:
            self._pass_whole()
            return
        told: list[bytes] = []
        try:
            _finish(self._stream, told)
        except (BadMessage, Untranslatable) as error:
            self._fail(told, error)
            return
        if not all(translator.exact for _, translator in self._stream):
            self._on_loss()
        self._tell(told)
        self._sink.on_complete()

    def on_failure(self, error: WireError) -> None:
        self._call = None
        self._sink.on_failure(error)

    def _end_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _relay(self, data: bytes) -> None:
        assert self._stream is not None
        told: list[bytes] = []
        try:
            _feed(self._stream, data, told)
        except (BadMessage, Untranslatable) as error:
            self._end_call()
            self._fail(told, error)
            return
        self._tell(told)

    def _tell(self, told: list[bytes]) -> None:
        if told:
            self._sink.on_data(b"".join(told))

    def _fail(self, told: list[bytes], error: Exception) -> None:
        """What came before the event that cannot be told is told, however the stream was split."""
        self._tell(told)
        self._sink.fail(
            ProviderFailed(f"The provider's stream cannot be told in the form that was asked for: {error}.")
        )

    def _pass_whole(self) -> None:
        status, headers = self._head
        body = b"".join(self._body)
        if status == 200:
            wrong = no_stream(body) if self._wants else wrong_with(Answer(status, headers, body))
            if wrong is not None:
                self._sink.fail(wrong)
                return
            try:
                answer = between.answer_in(self._to, self._of, body, self._document, created=self._created)
            except Untranslatable as error:
                self._sink.fail(
                    ProviderFailed(f"The provider's answer cannot be told in the form that was asked for: {error}.")
                )
                return
            body = answer.body
            if not answer.exact:
                self._on_loss()
        elif status >= 400:
            body = between.error_in(self._to, self._of, status, body, self._request_id)
        self._sink.on_response(status, _of_type(headers, _JSON))
        if body:
            self._sink.on_data(body)
        self._sink.on_complete()


_Stages = list[tuple[EventScanner, StreamTranslator]]


def _feed(stages: _Stages, data: bytes, told: list[bytes]) -> None:
    """Add to `told` what comes out of the last stage for `data`. Raises BadMessage and Untranslatable."""
    scanner, translator = stages[0]
    for event in scanner.feed(data):
        content = event_data(event)
        if content is not None:
            _hand_on(stages, translator.feed(content), told)


def _hand_on(stages: _Stages, data: bytes, told: list[bytes]) -> None:
    """What the first stage told goes to the next one, if there is one."""
    if not data:
        return
    if len(stages) == 1:
        told.append(data)
    else:
        _feed(stages[1:], data, told)


def _finish(stages: _Stages, told: list[bytes]) -> None:
    """Add what the stages still have to tell at the end of the stream, each fed with the rest of the one before."""
    scanner, translator = stages[0]
    left = event_data(scanner.rest())
    if left is not None:
        _hand_on(stages, translator.feed(left), told)
    _hand_on(stages, translator.finish(), told)
    if len(stages) > 1:
        _finish(stages[1:], told)


def _of_type(headers: Headers, content_type: tuple[bytes, bytes]) -> Headers:
    return [content_type, *(line for line in headers if line[0] != b"content-type")]
