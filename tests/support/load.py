"""Load for tests that break things meanwhile: it goes on, and knows afterwards what was answered."""

import random
import threading

import h11

from tests.support.product import Gateway
from tests.support.raw_http import ConnectionClosed

CLIENTS = 6


class Load:
    """Clients that ask without pause, some the same, some streamed, and note the ids of what was answered whole.

    `failed` holds what went otherwise: statuses, and connections that broke (0).
    """

    def __init__(self, gateway: Gateway, key: str, seed: int) -> None:
        self.answered: set[str] = set()
        self.failed: list[int] = []
        self.sent = 0
        self._gateway, self._key, self._seed = gateway, key, seed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        choose = random.Random(self._seed * 100 + number)
        while not self._stop.is_set():
            self.sent += 1
            try:
                answer = self._gateway.chat(
                    self._key, f"question {choose.randrange(400)} of {self._seed}", stream=choose.random() < 0.3
                )
            except (OSError, ConnectionClosed, h11.RemoteProtocolError):
                self.failed.append(0)
                continue
            request_id = answer.header("x-request-id")
            if answer.status == 200 and request_id:
                self.answered.add(request_id)
            else:
                self.failed.append(answer.status)

    def has_answers(self, number: int) -> bool:
        return len(self.answered) > number

    def end(self) -> set[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.answered
