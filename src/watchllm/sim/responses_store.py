"""The responses that the simulator keeps, for `previous_response_id` and to be read again."""

from typing import Any

import msgspec

from watchllm.sim.reply import Refused

_MAX_RESPONSES = 1000
_MAX_BYTES = 64 * 1024 * 1024
_encode = msgspec.json.encode
_decode = msgspec.json.decode


class StoredResponses:
    """Responses by id, bounded in number and bytes; the oldest go first."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[bytes, bytes]] = {}
        self._bytes = 0

    def clear(self) -> None:
        self._stored.clear()
        self._bytes = 0

    def put(self, response_id: str, body: bytes, items: list[Any], output: list[Any]) -> None:
        """Keep the response with all items that led to it, those of the responses before it included."""
        history = _encode([items, output])
        self._stored[response_id] = (body, history)
        self._bytes += len(body) + len(history)
        while self._bytes > _MAX_BYTES or len(self._stored) > _MAX_RESPONSES:
            self._drop(next(iter(self._stored)))

    def body(self, response_id: str) -> bytes:
        """The response as it was answered. Raises Refused."""
        return self._find(response_id)[0]

    def items(self, response_id: str) -> list[Any]:
        """What led to the response. Raises Refused."""
        items: list[Any] = _decode(self._find(response_id)[1])[0]
        return items

    def delete(self, response_id: str) -> None:
        """Raises Refused."""
        self._find(response_id)
        self._drop(response_id)

    def continued(self, response_id: str) -> list[Any]:
        """The items that a request goes on from when it names this response. Raises Refused."""
        if response_id not in self._stored:
            raise Refused(
                f"Previous response with id '{response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        items, output = _decode(self._stored[response_id][1])
        return [*items, *output]

    def _find(self, response_id: str) -> tuple[bytes, bytes]:
        if response_id not in self._stored:
            raise Refused(f"Response with id '{response_id}' not found.", status=404)
        return self._stored[response_id]

    def _drop(self, response_id: str) -> None:
        body, history = self._stored.pop(response_id)
        self._bytes -= len(body) + len(history)
