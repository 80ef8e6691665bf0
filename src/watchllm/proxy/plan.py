"""What a flight needs beside its waiters: how its question is put to each candidate, and what its answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from watchllm.cache.entry import Entry
from watchllm.cache.key import KEY_LENGTH, key_in_dialect
from watchllm.domain import json_body
from watchllm.domain.errors import GatewayError
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import BYPASS
from watchllm.providers.dialect import CHAT, RESPONSES, Assembler, Verdict
from watchllm.providers.dialects import dialect as dialect_named
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai import answers
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.proxy import egress
from watchllm.proxy.approach import AnswerSink, Approach, Candidate, Endable, addressed, upstream_dialect
from watchllm.proxy.asked import Asked
from watchllm.proxy.at_hand import MOST_KEYS, bring, places_of
from watchllm.proxy.bad_answers import no_stream, wrong_with
from watchllm.proxy.calls import account, store
from watchllm.proxy.demand import most_used
from watchllm.proxy.directives import Directives
from watchllm.proxy.flight import Flight
from watchllm.proxy.keeping import kept_form, verdict_on
from watchllm.proxy.proof import Standard
from watchllm.proxy.request import Request
from watchllm.proxy.retelling import kept_for_dialect, told_in
from watchllm.proxy.services import Services
from watchllm.proxy.shared_objects import refuse_shared
from watchllm.proxy.shared_stream import SharedStream
from watchllm.proxy.tenant import PARTITION_LENGTH, Tenant
from watchllm.proxy.upstream import Answer
from watchllm.proxy.waiter import Landed
from watchllm.routing.target import Target
from watchllm.wire.types import ResponseSink

_encode = msgspec.json.Encoder().encode


class Plan:
    """Implements `FlightPlan` for a flight whose answer is stored under `key` and which can be joined at `place`.

    `labels` are those that its answer repeats: only requests with the same are relayed a stream.
    """

    __slots__ = (
        "_assembler",
        "_body",
        "_document",
        "_inlined",
        "_inlined_for",
        "_judged",
        "_key",
        "_leader",
        "_lossy",
        "_services",
        "asked",
        "dialect",
        "endpoint",
        "labels",
        "place",
        "settle",
    )

    def __init__(
        self,
        services: Services,
        leader: Request,
        endpoint: Endpoint,
        asked: Asked,
        body: bytes,
        key: bytes | None,
        place: bytes | None,
    ) -> None:
        self._services = services
        self._leader = leader
        self._body = body
        self._key = key
        self._assembler: Assembler | None = None
        self._document: dict[str, Any] | None = None
        self._inlined: dict[str, Any] | None = None
        self._inlined_for: tuple[Candidate, ...] = ()
        self._judged: tuple[bytes, Verdict] | None = None
        self._lossy = False
        self.endpoint = endpoint
        self.dialect = endpoint.dialect
        self.asked = asked
        self.place = place
        self.settle = services.settlement.settle
        self.labels = _labels_of(body) if endpoint.dialect == RESPONSES else b""

    @property
    def document(self) -> dict[str, Any]:
        """The request, read once more where something of it is needed."""
        if self._document is None:
            self._document = json_body.parse(self._body)
        return self._document

    def shared_stream(self) -> SharedStream | None:
        """What the answer is collected in where a stream is asked for."""
        asked = self.asked
        if not asked.streamed:
            return None
        if self.dialect == CHAT:
            self._assembler = StreamAssembler(self.endpoint.family, choices=asked.expected or 1)
        else:
            self._assembler = dialect_named(self.dialect).assembler(self.document)
        return SharedStream(self._assembler, has_usage=self.dialect == CHAT and self._is_told_usage())

    def inline(self, document: dict[str, Any], original: dict[str, Any], candidates: list[Candidate]) -> None:
        """Give `candidates` a chat `document` in which images stand in place of the URLs of the `original`."""
        if document is not original:
            self._inlined = document
            self._inlined_for = tuple(candidates)

    # --- the question ------------------------------------------------------------------------------------------------

    def approach(self, candidate: Candidate) -> Approach:
        """The question as it goes to `candidate`. Raises BadRequest where it cannot be put in that provider's words."""
        services, leader, endpoint, target = self._services, self._leader, self.endpoint, candidate.target
        spoken = upstream_dialect(endpoint, target)
        if spoken != self.dialect or candidate in self._inlined_for:
            approach = self._translated(candidate, spoken)  # names first what has no counterpart there
            refuse_shared(target, self.asked.names_object, translated=spoken != self.dialect)
            return approach
        refuse_shared(target, self.asked.names_object)
        url, head = addressed(services, leader, candidate, endpoint.path, dialect=spoken)
        add_usage = self._adds_usage(target)
        if self.asked.named == target.model and not add_usage:
            return Approach(url, head, self._body)
        return Approach(url, head, answers.upstream_body(self._body, target.model, include_usage=add_usage))

    def _translated(self, candidate: Candidate, spoken: str) -> Approach:
        from watchllm.providers.translation import between
        from watchllm.proxy.translated import TranslatedAnswer

        target, asked, leader, of = candidate.target, self.asked, self._leader, self.dialect
        if self._inlined is not None and candidate in self._inlined_for:
            translated = between.request_in(spoken, CHAT, self._inlined, target.model)
        else:
            translated = between.request_in(spoken, of, self.document, target.model)
        document = {**translated.document, "model": target.model}
        if spoken == CHAT and between.NEW_LIMIT in target.vendor.aliases:
            document = between.renamed(document, between.OLD_LIMIT, between.NEW_LIMIT)
        if asked.streamed:
            document["stream"] = True
            if spoken == CHAT and target.vendor.stream_usage:
                document["stream_options"] = {"include_usage": True}
        path = dialect_named(spoken).path
        url, head = addressed(self._services, leader, candidate, path, dialect=spoken, same_dialect=spoken == of)

        if spoken == of:
            return Approach(url, head, _encode(document), None, translated.dropped)

        def back(sink: AnswerSink, call: Endable) -> ResponseSink:
            return TranslatedAnswer(
                sink,
                call,
                of,
                spoken,
                self.document,
                leader.id,
                streamed=asked.streamed,
                on_loss=self._note_loss,
                created=leader.wall_ms // 1000,
            )

        return Approach(url, head, _encode(document), back, translated.dropped)

    def _note_loss(self) -> None:
        """The answer that comes says less than the original, and is for this dialect alone. Of two calls beside each
        other it may be the other's: then the answer is shared with fewer than it could be."""
        self._lossy = True

    def _is_told_usage(self) -> bool:
        """Whether the stream reports usage that the gateway has to take out for who did not ask."""
        return self.asked.include_usage or any(
            self._adds_usage(target) or upstream_dialect(self.endpoint, target) != CHAT for target in self.asked.targets
        )

    def _adds_usage(self, target: Target) -> bool:
        """Whether the gateway asks for usage where the client did not."""
        asked = self.asked
        return (
            asked.streamed
            and not asked.include_usage
            and asked.takes_usage
            and self.dialect == CHAT
            and target.vendor.stream_usage
        )

    # --- the answer --------------------------------------------------------------------------------------------------

    @property
    def standard(self) -> Standard:
        """What an answer has to be before it is passed on, while another call could take its place."""
        return Standard(self.asked.streamed, self._fault)

    def _fault(self, answer: Answer) -> GatewayError | None:
        body = answer.body
        if self.asked.streamed:
            return no_stream(body)
        verdict = self.judge(body)
        self._judged = body, verdict
        return wrong_with(answer, verdict)

    def judge(self, body: bytes) -> Verdict:
        if self._judged is not None and self._judged[0] is body:
            return self._judged[1]  # the very bytes that were proved are passed on
        return verdict_on(self.endpoint, self.asked, self._body, lambda: self.document, body)

    def account(self, request: Request, usage: TokenUsage | None) -> None:
        if self.asked.in_background and (usage is None or usage.estimated):
            # The provider goes on, and tells nobody here what it used.
            usage = most_used(request, self._body)
        # A translated stream that was cut tells no input: the counts come with its end.
        if usage is None or (usage.estimated and not usage.input):
            usage = answers.usage_so_far(self._body, self._assembler)
        account(self._services, request, request.target or self.asked.target, usage)

    def account_unfinished(self, request: Request, usage: TokenUsage | None) -> None:
        stream = self._assembler
        has_begun = stream is not None and (stream.text != "" or stream.failure is not None)
        if request.at_most is not None and not has_begun and (usage is None or usage.estimated):
            # None of it was read: it may have been all that a budget was reserved for.
            usage = request.at_most
        self.account(request, usage)

    def store(self, body: bytes) -> None:
        key, target = self._key, self._leader.target or self.asked.target
        if key is None:
            return
        if target.identity[:3] != self.asked.target.identity[:3]:
            key = self._key_at(target)
            self._services.history.stored_elsewhere(self._leader, key)
        if self._lossy:
            key = key_in_dialect(key, self.dialect)
        store(self._services, self._leader, self.endpoint, target, key, kept_form(self.endpoint, body))
        tenant, wishes = self._tenant_and_wishes()
        if tenant.semantic and wishes.semantic:
            services = self._services
            services.semantic.keep_later(
                services, self._leader, self.endpoint, self.asked.target, target, key, self._body
            )

    def stored(self, candidate: Candidate) -> tuple[bytes, Entry] | None:
        """What the cache holds of a fallback's answer, where the request may be given it: its key, and the entry in the
        request's own words."""
        leader, target = self._leader, candidate.target
        wishes, principal = leader.directives, leader.principal
        assert wishes is not None
        assert principal is not None
        is_asked_for = target.identity[:3] == self.asked.target.identity[:3]
        if is_asked_for or leader.cache == BYPASS or not wishes.read:
            return None
        key = self._key_at(target)
        cache, partition = self._services.cache, principal.tenant.partition
        entry = cache.get(partition, key)
        told = None if entry is None else told_in(self.endpoint, entry, self._body)
        if told is None or not wishes.accept(told, leader.wall_ms):
            told = kept_for_dialect(cache, partition, key, self.endpoint, target, self._body)
            if told is None or not wishes.accept(told, leader.wall_ms):
                return None
            self._lossy = True  # for who waits for it, too
        return key, told

    async def bring_stored(self, candidates: Sequence[Candidate]) -> None:
        """Have at hand what a shared cache holds of the fallbacks' answers, before `stored` is asked for them."""
        wishes = self._leader.directives
        assert wishes is not None
        if self._leader.cache == BYPASS or not wishes.read:
            return
        asked = self.asked.target.identity[:3]
        others = {each.target.identity[:3]: each.target for each in candidates}
        others.pop(asked, None)
        keys = [key for to in others.values() for key in places_of(self._key_at(to), self.endpoint, to)]
        tenant, _ = self._tenant_and_wishes()
        brought = bring(self._services, tenant.partition, keys[:MOST_KEYS]) if keys else None
        if brought is not None:
            await brought

    def _key_at(self, target: Target) -> bytes:
        """Where the answer of a fallback is found: under the target that gave it, never under the one asked for."""
        leader = self._leader
        tenant, wishes = self._tenant_and_wishes()
        return self._services.tenants.reader.key_at(
            tenant,
            self.endpoint,
            self._body,
            leader.exchange.headers,
            leader.exchange.query,
            wishes.user,
            target,
        )

    def _tenant_and_wishes(self) -> tuple[Tenant, Directives]:
        leader = self._leader
        assert leader.principal is not None
        assert leader.directives is not None
        return leader.principal.tenant, leader.directives

    def error_event(self, error: GatewayError) -> bytes:
        return egress.error_event(error, self.dialect, self._leader.id)

    def told_to(self, request: Request, dialect: str, landed: Landed) -> Landed | None:
        """A whole answer as a request in `dialect` may be given it; None where that form would say less."""
        answer = landed.answer
        if dialect == self.dialect:
            if dialect != RESPONSES or request is self._leader or answer.status != 200:
                return landed
            from watchllm.providers.responses.echo import labelled

            return _retold(landed, labelled(answer.body, _document_of(request)))
        from watchllm.providers.translation import between

        if answer.status != 200:
            body = between.error_in(dialect, self.dialect, answer.status, answer.body, request.id)
            return _retold(landed, body)
        if self._lossy:
            return None
        told = between.retold_in(
            dialect, self.dialect, answer.body, _document_of(request), created=request.wall_ms // 1000
        )
        return None if told is None else _retold(landed, told)

    def ended(self, flight: Flight) -> None:
        place = self.place
        if place is not None and self._services.flights.get(place) is flight:
            del self._services.flights[place]
            if self._services.leases is not None:
                self._services.leases.release(place[: PARTITION_LENGTH + KEY_LENGTH])


def _retold(landed: Landed, body: bytes) -> Landed:
    return replace(landed, answer=replace(landed.answer, body=body))


def _labels_of(body: bytes) -> bytes:
    from watchllm.providers.responses.echo import labels_of  # what speaks chat does without

    return labels_of(body)


def _document_of(request: Request) -> dict[str, Any]:
    """What a follower asked; of an encoded body nothing is echoed."""
    exchange = request.exchange
    return {} if b"content-encoding" in exchange.headers else json_body.parse(exchange.body)
