"""Clients that never stop asking, and that count each answer which is not the one they asked for."""

import itertools
import threading
from types import TracebackType
from typing import Self

import h11

from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse, request_bytes

CHAT = "/v1/chat/completions"


class Hammer:
    """So many clients on connections that they keep, and as many that connect for each request.

    Each asks in turn what is a hit, what is a miss, and for a stream. A client that is told `Connection: close`
    connects anew; nothing is ever sent twice. Use it as a context manager.
    """

    def __init__(self, port: int, key: str, *, clients: int = 2) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._key = key
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(keeps,)) for keeps in (True, False) for _ in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, keeps: bool) -> None:
        connection: RawConnection | None = None
        while not self._stop.is_set():
            number = next(self._numbers)
            try:
                if connection is None:
                    connection = RawConnection(self._port, timeout=30)
                connection.send(self._request(number))
                answer = connection.response(b"POST")
            except (OSError, ConnectionClosed, h11.RemoteProtocolError) as error:
                self.failed.append(f"request {number}: {error!r}")
                _close(connection)
                connection = None
                continue
            self._judge(number, answer)
            if not keeps or answer.header("connection") == "close":
                connection.close()
                connection = None
        _close(connection)

    def _request(self, number: int) -> bytes:
        text = "always the same" if number % 3 else f"question {number}"
        stream = number % 3 == 2
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "stream": stream}
        return request_bytes(CHAT, key=self._key, body=body)

    def _judge(self, number: int, answer: RawResponse) -> None:
        whole = answer.body.rstrip().endswith(b"data: [DONE]") if number % 3 == 2 else b'"choices"' in answer.body
        if answer.status == 200 and whole:
            self.answered += 1
        else:
            self.failed.append(f"request {number}: {answer.status} {answer.body[:200]!r}")


def _close(connection: RawConnection | None) -> None:
    if connection is not None:
        connection.close()
