"""Questions whose answers are looked into before they are passed on."""

from types import SimpleNamespace
from typing import Any, cast

from tests.support.attempts import BODY, Call, Sink, World, answer, candidate
from watchllm.domain.errors import GatewayError, ProviderFailed
from watchllm.proxy.approach import Approach, Candidate
from watchllm.proxy.attempts import Attempts
from watchllm.proxy.proof import Standard
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import Answer
from watchllm.routing.route import Choice, Route
from watchllm.wire.types import Headers

GOOD, BAD = b'{"fit":1}', b"<html>"
EVENTS: Headers = [(b"content-type", b"Text/Event-Stream; charset=utf-8")]
FIRST = b'data: {"choices":[]}\n\n'
A, B, C = candidate("a"), candidate("b"), candidate("c")


def fault(answer: Answer) -> GatewayError | None:
    if answer.body == b"crash":
        raise RuntimeError("a mistake of ours")
    return ProviderFailed("unfit") if answer.body != GOOD else None


class Question:
    """One request to several candidates whose answers are looked into."""

    def __init__(
        self,
        *candidates: Candidate,
        streamed: bool = False,
        translated: Any = None,
        judge: Any = None,
        stored: Any = None,
        world: World,
        **policy: Any,
    ) -> None:
        self.world = world
        self.request = Request(cast(Any, SimpleNamespace(began=0.0, headers={})), "chat.completions")
        tenant = SimpleNamespace(project=SimpleNamespace(id="prj_1"))
        self.request.principal = cast(Any, SimpleNamespace(tenant=tenant))
        self.sink = Sink()
        route = Route("m", (Choice(1, tuple(one.target for one in candidates)),), **policy)
        self.attempts = Attempts(
            cast(Services, world),
            self.request,
            route,
            candidates,
            lambda _one: Approach(b"/v1", b"", BODY, translated),
            self.sink,
            Standard(streamed, judge or fault),
            stored,
        )
        self.attempts.begin()

    @property
    def lost(self) -> list[tuple[str, int, str | None, bool]]:
        """The calls that came to nothing: provider, status, error, and whether they may be charged for."""
        return [(one.provider, one.status, one.error, bool(one.cost)) for one in self.request.attempts]


def whole(call: Call, *pieces: bytes, headers: Headers | None = None) -> None:
    answer(call, 200, headers)
    for piece in pieces:
        call.sink.on_data(piece)
    call.sink.on_complete()
