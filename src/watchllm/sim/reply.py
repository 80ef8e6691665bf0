"""What an endpoint gets and gives: a request already parsed, and a whole or a streamed answer not yet delivered."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from watchllm.sim.judge import Labels
from watchllm.sim.knobs import Knobs

JSON = b"application/json"


class Upload(NamedTuple):
    """A file of a multipart form."""

    field: str
    filename: str
    content_type: str
    data: bytes


class Request(msgspec.Struct):
    """One call. `fields` are the JSON body's or the form's, empty without a body; `tail` is what follows a path that
    ends in an id; `name` is the model's without prefix and knobs; `headers` have lower-case names; `number` counts
    calls, so that ids are unique; `created` is in epoch seconds; `labels` are what `sim/judge` knows of pairs."""

    method: str
    fields: dict[str, Any]
    files: list[Upload]
    tail: str
    knobs: Knobs
    number: int
    created: int
    run: str
    name: str = ""
    headers: Mapping[bytes, bytes] = {}
    labels: Labels = {}


class Reply(msgspec.Struct):
    """A whole answer. `head` holds further header lines, each ending in CRLF."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    head: bytes = b""


class StreamReply(msgspec.Struct):
    """A streamed answer: complete events, then the event that reports usage, then the one that ends the stream
    (`usage_in_done`: which reports usage too). `head` holds further header lines, each ending in CRLF."""

    events: list[bytes]
    usage: bytes = b""
    done: bytes = b""
    status: int = 200
    content_type: bytes = b"text/event-stream; charset=utf-8"
    head: bytes = b""
    usage_in_done: bool = False


Answer: TypeAlias = Reply | StreamReply


class Refused(Exception):
    """The request cannot be answered, as the real provider would say it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = kind
        self.param = param
        self.code = code


class Endpoint(NamedTuple):
    """One row of a dialect: who answers a method and path. `body` is "json", "form" or "" (none is read)."""

    answer: Callable[[Request], Answer]
    body: str = "json"


class Dialect(NamedTuple):
    """A provider's wire format as the simulator speaks it.

    `paths` maps a path (without `/v1`; a final `/` stands for an id behind it) to its endpoints by method. `head` and
    `error_body` get the number of the call, `stream_error` that number and how many events came before the error;
    `asked_for` is the error with a status that a knob asks for, `code` in place of the usual one; `unreadable` is said
    of a body that is no JSON object.
    """

    paths: Mapping[bytes, Mapping[bytes, Endpoint]]
    head: Callable[[int], bytes]
    error_body: Callable[[Refused, int], bytes]
    stream_error: Callable[[int, int], bytes]
    asked_for: Callable[[int, str], Refused]
    unreadable: str
