"""How often the control plane asks a Redis that does not answer."""

import socket
import threading
from collections.abc import Iterator

import pytest
from redis import RedisError

from watchllm.stores.redis import blocking
from watchllm.stores.redis.blocking import Blocking


class Silent:
    """It accepts connections and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if not connection.recv(1):
                connection.close()
                return
            self.accepted.append(connection)

    def stop(self) -> None:
        """All that connected before are accepted when it returns."""
        if not self._thread.is_alive():
            return
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.stop()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> float:
    """What counts as the full time for an answer, here."""
    monkeypatch.setattr(blocking, "_ANSWER_SECONDS", 0.05)
    return 0.05


def test_one_that_does_not_answer_in_time_is_asked_once(silent: Silent, brief: float) -> None:
    redis = Blocking(silent.url, brief)
    with pytest.raises(RedisError, match="Timeout"):
        redis.redis.ping()
    redis.close()
    silent.stop()
    assert len(silent.accepted) == 1
