"""What the proxy needs to know of a wire format, and what a translation between two of them has to give.

A *dialect* is a provider's wire format of generated answers: `chat` (OpenAI chat completions), `messages` (Anthropic)
and `responses` (OpenAI Responses). Dialects do not know each other; `providers.translation` knows pairs of them, with
`chat` as the hub: a request or answer goes from `responses` to `messages` by way of `chat`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from watchllm.domain.errors import GatewayError
from watchllm.domain.usage import TokenUsage

CHAT, MESSAGES, RESPONSES = "chat", "messages", "responses"
ANTHROPIC_VERSION = b"2023-06-01"
"""The `anthropic-version` that the gateway speaks where a client names none."""


class Verdict(msgspec.Struct, frozen=True):
    """What an answer with status 200 was. `refused` says in a few words why it may not be stored, None = it may.

    `readable`: whether it was an answer of this dialect at all.
    """

    refused: str | None
    finish_reasons: tuple[str, ...]
    usage: TokenUsage | None
    readable: bool = True

    @property
    def storable(self) -> bool:
        return self.refused is None


class Assembler(Protocol):
    """Reads one stream along and puts it together into the answer that the same request would have got unstreamed.

    Bounded in memory: a stream too large to be kept has no result, but its usage and ending are still read.
    """

    done: bool
    """Whether the stream's own end marker came."""
    error: Any
    """The error object that came in the stream, if one did."""
    failure: str | None
    """Why there will be no result whatever comes: the stream cannot be read, or is too large."""
    text_length: int
    """Characters of text seen so far, to estimate the tokens of a stream that was cut."""

    @property
    def usage(self) -> TokenUsage | None: ...

    @property
    def text(self) -> str: ...

    @property
    def finish_reasons(self) -> tuple[str, ...]: ...

    def feed(self, data: bytes) -> None:
        """Take the data of the next event in. Raises nothing: see `failure` and `error`."""
        ...

    def result(self) -> bytes | None:
        """The whole answer as JSON, or None when the stream was cut, failed, or could not be put together."""
        ...


class Dialect(NamedTuple):
    """A wire format. `path` is where requests go, below the base URL.

    `judge(body, document)` judges a whole answer to the request `document`; `assembler(document)` reads a stream along;
    `replay(body, include_usage=…)` tells a stored answer as the stream that the provider would have sent;
    `error_body(error, request_id)` and `error_event(error, request_id)` give an error of the gateway's own its form.
    """

    name: str
    path: str
    judge: Callable[[bytes, dict[str, Any]], Verdict]
    assembler: Callable[[dict[str, Any]], Assembler]
    replay: Callable[..., bytes]
    error_body: Callable[[GatewayError, str], bytes]
    error_event: Callable[[GatewayError, str], bytes]


class TranslatedRequest(NamedTuple):
    """A request in another dialect. `dropped` names the fields (dotted, as the client wrote them) that have no
    counterpart and that could safely be left out. `exact`: nothing that shapes the answer was lost or changed, so that
    both forms of the question may share an entry of the cache."""

    document: dict[str, Any]
    dropped: tuple[str, ...]
    exact: bool


class TranslatedAnswer(NamedTuple):
    """A whole answer in another dialect. `exact`: it says all that the original says."""

    body: bytes
    exact: bool


class Untranslatable(Exception):
    """An answer that the other dialect has no form for; the message says why, in a few words."""


class StreamTranslator(Protocol):
    """Turns one stream's events into another dialect's, as they come; nothing is held back that could be told."""

    exact: bool
    """Whether what was told so far says all that the original says; final when the stream has ended."""

    def feed(self, data: bytes) -> bytes:
        """Whole events of the other dialect, maybe none, for the data of one event. An error inside the stream becomes
        the other dialect's own. Raises BadMessage (wire.types) for what is no event of the dialect it reads."""
        ...

    def finish(self) -> bytes:
        """What is still to be told when the stream has ended as its dialect ends one; empty when it was cut: what
        follows then must not look like a good end."""
        ...
