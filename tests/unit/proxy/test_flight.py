"""A call and those who wait for it: pace, bounds and ends, with clients and a provider that do what they are told."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from watchllm.domain.errors import GatewayError, InternalError, ProviderFailed, TimedOut
from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.storable import Verdict, judge
from watchllm.proxy import shared_stream
from watchllm.proxy.directives import Directives
from watchllm.proxy.flight import Flight
from watchllm.proxy.request import Request
from watchllm.proxy.shared_stream import SharedStream
from watchllm.proxy.waiter import Landed, Waiter
from watchllm.wire.exchange import Exchange
from watchllm.wire.types import ConnectFailed, PeerClosed

WHOLE = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9}}'
FILTERED = WHOLE.replace(b'"stop"', b'"content_filter"')
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
COST = 7


def chunk(size: int = 1) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * size)


class Client:
    """The client's end of an exchange: takes what it is sent while `writable`."""

    began = 0.0

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.writable = True
        self.received = b""
        self.started = self.finished = self.aborted = False
        self.on_writable: Callable[[], None] | None = None

    def start(self, status: int, _head: bytes) -> None:
        assert not self.started
        assert status == 200
        self.started = True

    def write(self, data: bytes) -> None:
        assert data
        assert not self.finished
        self.received += data

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.finished = self.aborted = True

    def read_on(self) -> None:
        self.writable = True
        assert self.on_writable is not None
        self.on_writable()


class Provider:
    """The call: what was asked of it, and whether it is `reading` or paused."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause(self) -> None:
        assert self.reading()
        self.asked.append("pause")

    def resume(self) -> None:
        assert not self.reading()
        self.asked.append("resume")

    def cancel(self) -> None:
        self.asked.append("cancel")

    def reading(self) -> bool:
        return self.asked[-1:] != ["pause"]


class Timer:
    def __init__(self, expire: Callable[[], None]) -> None:
        self.expire = expire
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Trip:
    """A flight and all around it: its plan, too. `settled` has (request, status, ended), `stored` the bodies."""

    def __init__(self, *, streamed: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        self.provider = Provider()
        self.timers: list[Timer] = []
        self.settled: list[tuple[Request, int, str]] = []
        self.stored: list[bytes] = []
        self.ends = 0
        stream = SharedStream(StreamAssembler("generate"), has_usage=False) if streamed else None
        self.leader = self.waiter(streamed=streamed)
        self.flight = Flight(self.leader.request, self, stream)
        self.add(self.leader)
        self.flight.begin(lambda _flight: cast(Any, self.provider))

    def settle(self, request: Request, status: int, ended: str) -> None:
        if request.settled:
            return
        if request.deferred:
            request.deferred_end = (status, ended)
            return
        request.settled = True
        self.settled.append((request, status, ended))

    def account(self, request: Request, usage: TokenUsage | None) -> None:
        request.usage, request.cost = usage, COST

    def judge(self, body: bytes) -> Verdict:
        return judge("generate", body)

    def store(self, body: bytes) -> None:
        self.stored.append(body)

    def ended(self, _flight: Flight) -> None:
        self.ends += 1

    def call_later(self, _delay: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(lambda: callback(*arguments)))
        return self.timers[-1]

    def waiter(self, *, streamed: bool, timeout: float | None = None) -> Waiter:
        request = Request(cast(Exchange, Client()), "chat.completions")
        request.streamed = streamed
        request.directives = Directives(True, True, 60, timeout=timeout)
        return Waiter(request, include_usage=False)

    def add(self, waiter: Waiter) -> Client:
        self.flight.add(waiter, cast(asyncio.AbstractEventLoop, self))
        return client_of(waiter)

    def join(self, *, streamed: bool, timeout: float | None = None) -> Waiter:
        waiter = self.waiter(streamed=streamed, timeout=timeout)
        self.add(waiter)
        return waiter

    def answers(self, status: int = 200, kind: bytes = b"text/event-stream") -> None:
        self.flight.on_response(status, [(b"content-type", kind)])

    def lands(self, body: bytes = WHOLE) -> None:
        self.answers(kind=b"application/json")
        self.flight.on_data(body)
        self.flight.on_complete()

    def streams(self, *events: bytes) -> None:
        self.answers()
        self.sends(*events)
        self.flight.on_complete()

    def sends(self, *events: bytes) -> None:
        for event in events:
            self.flight.on_data(event)

    def endings(self) -> list[tuple[int, str]]:
        return [(status, ended) for _, status, ended in self.settled]


def client_of(waiter: Waiter) -> Client:
    return cast(Client, waiter.request.exchange)


def landed(waiter: Waiter) -> Landed | None:
    return waiter.result()


def error_of(waiter: Waiter) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        waiter.result()
    return raised.value


@pytest.fixture
def trips() -> Iterator[Callable[..., Trip]]:
    made: list[Trip] = []

    def make(*, streamed: bool) -> Trip:
        made.append(Trip(streamed=streamed))
        return made[-1]

    yield make
    for trip in made:
        trip.__dict__.pop("leader", None)
        trip.settled.clear()
        gc.collect()
        trip.loop.close()
        assert not trip.complaints


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_stream, "JOINABLE_BYTES", 1_000)
    monkeypatch.setattr(shared_stream, "MAX_LAG_BYTES", 10_000)


def held(trip: Trip) -> int:
    assert trip.flight._stream is not None
    return trip.flight._stream._held


# --- pace and bounds -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_bounds")
def test_a_reader_that_lags_behind_more_than_the_bound_is_cut_off_and_memory_stays_bounded(
    trips: Callable[..., Trip],
) -> None:
    trip = trips(streamed=True)
    slow = trip.join(streamed=True)
    trip.answers()
    client_of(slow).writable = False
    sent = b""
    for _ in range(100):
        trip.sends(chunk(1000))
        sent += chunk(1000)
        assert held(trip) <= 10_000
        assert trip.provider.reading()
    assert client_of(slow).aborted
    assert (slow.request, 200, "cut") in trip.settled
    assert slow.request.error == "client_too_slow"
    assert landed(slow) is None
    trip.sends(LAST, DONE)
    trip.flight.on_complete()
    assert client_of(trip.leader).received == sent + LAST + DONE
    assert client_of(trip.leader).finished


@pytest.mark.usefixtures("small_bounds")
def test_a_stream_s_slow_reader_is_cut_off_though_the_others_want_the_whole_answer(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=True)
    whole = trip.join(streamed=False)
    trip.answers()
    client_of(trip.leader).writable = False
    for _ in range(100):
        trip.sends(chunk(1000))
        assert held(trip) <= 10_000
    assert client_of(trip.leader).aborted
    assert not trip.settled, "the leader pays: it is settled when the cost is known"
    trip.sends(LAST, DONE)
    trip.flight.on_complete()
    assert trip.settled == [(trip.leader.request, 200, "cut")]
    assert trip.leader.request.cost == COST
    answer = landed(whole)
    assert answer is not None
    assert len(answer.answer.body) > 100_000
    assert trip.stored == [answer.answer.body]


@pytest.mark.usefixtures("small_bounds")
def test_upstream_is_paused_only_while_nobody_reads(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=True)
    second = trip.join(streamed=True)
    trip.answers()
    clients = [client_of(trip.leader), client_of(second)]
    clients[0].writable = False
    trip.sends(chunk())
    assert trip.provider.reading()
    clients[1].writable = False
    trip.sends(chunk(50_000))
    assert not trip.provider.reading()
    assert not any(client.aborted for client in clients), "equally slow: nobody is held up by another"
    clients[1].read_on()
    assert trip.provider.reading()
    trip.sends(chunk())
    assert [client.aborted for client in clients] == [True, False]


def test_with_one_reader_back_pressure_reaches_upstream(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=True)
    trip.answers()
    client = client_of(trip.leader)
    for number in range(1, 4):
        client.writable = False
        trip.sends(chunk(), chunk())
        assert not trip.provider.reading()
        assert trip.provider.asked.count("pause") == number
        client.read_on()
        assert trip.provider.reading()
    assert client.received == chunk() * 6


@pytest.mark.parametrize("streamed", [True, False])
def test_who_comes_anew_does_not_wait_for_the_slow(trips: Callable[..., Trip], streamed: bool) -> None:
    trip = trips(streamed=True)
    trip.answers()
    client_of(trip.leader).writable = False
    trip.sends(chunk())
    assert not trip.provider.reading()
    trip.join(streamed=streamed)
    assert trip.provider.reading()


def test_a_late_follower_sees_the_first_byte_while_all_is_held(trips: Callable[..., Trip], small_bounds: None) -> None:
    trip = trips(streamed=True)
    trip.answers()
    trip.sends(chunk(400))
    assert trip.flight.can_be_joined(streamed=True, include_usage=False)
    assert client_of(trip.join(streamed=True)).received == chunk(400)
    trip.sends(chunk(600))
    assert not trip.flight.can_be_joined(streamed=True, include_usage=False)
    assert trip.flight.can_be_joined(streamed=False, include_usage=False)


def test_five_thousand_followers_get_every_byte(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=True)
    followers = [trip.join(streamed=number % 5 != 0) for number in range(5000)]
    trip.answers()
    trip.sends(chunk(), chunk(), LAST, DONE)
    trip.flight.on_complete()
    body = chunk() * 2 + LAST + DONE
    for follower in followers:
        if follower.request.streamed:
            assert client_of(follower).received == body
            assert (follower.request.cost, follower.request.saved) == (0, COST)
        else:
            assert landed(follower) is not None
    assert trip.endings() == [(200, "complete")] * 4001
    assert len(trip.stored) == 1
    assert not trip.flight._waiters


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_leader_that_leaves_while_it_still_reads_after_the_end_is_settled_at_once(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=True)
    other = trip.join(streamed=True)
    trip.answers()
    for waiter in (trip.leader, other):
        client_of(waiter).writable = False
    trip.sends(chunk(), LAST, DONE)
    trip.flight.on_complete()
    assert trip.ends == 1
    trip.flight.leave(trip.leader)
    trip.settle(trip.leader.request, 499, "cancelled")
    assert trip.settled == [(trip.leader.request, 499, "cancelled")]
    client_of(other).read_on()
    assert client_of(other).finished
    assert trip.endings() == [(499, "cancelled"), (200, "complete")]
    client_of(other).read_on()  # the exchange still has its callback
    assert client_of(other).received == chunk() + LAST + DONE


def test_the_time_upstream_does_not_bound_the_reading_after_its_end(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=True)
    follower = trip.join(streamed=True, timeout=1)
    trip.answers()
    client_of(follower).writable = False
    trip.sends(LAST, DONE)
    trip.flight.on_complete()
    trip.timers[0].expire()
    assert not client_of(follower).finished
    client_of(follower).read_on()
    assert client_of(follower).received == LAST + DONE


def test_time_that_is_over_at_the_moment_of_landing_changes_nothing(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    follower = trip.join(streamed=False, timeout=1)
    trip.lands()
    (timer,) = trip.timers
    assert timer.cancelled
    timer.expire()  # it was due in the same turn of the loop
    assert landed(follower) == landed(trip.leader)


def test_landing_at_the_moment_when_the_time_is_over_changes_nothing(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    follower = trip.join(streamed=False, timeout=1)
    trip.timers[0].expire()
    trip.lands()
    with pytest.raises(TimedOut):
        follower.result()
    assert landed(trip.leader) is not None


def test_the_last_to_leave_cancels_the_call_once(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    follower = trip.join(streamed=False)
    trip.flight.leave(trip.leader)
    trip.settle(trip.leader.request, 499, "cancelled")
    assert (trip.provider.asked, trip.settled) == ([], [])
    trip.flight.leave(follower)
    trip.flight.leave(follower)
    assert trip.provider.asked == ["cancel"]
    assert trip.ends == 1
    assert trip.settled == [(trip.leader.request, 499, "cancelled")]
    assert not trip.flight.can_be_joined(streamed=False, include_usage=False)


def test_an_error_that_nobody_waits_for_any_more_is_no_complaint(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    trip.flight.on_failure(PeerClosed("gone"))
    trip.flight.leave(trip.leader)  # in the same turn, before its request was told
    del trip.leader, trip.flight
    gc.collect()
    assert not trip.complaints


def test_a_call_that_cannot_be_made_fails_for_its_leader(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)

    def refuse(_flight: Flight) -> Any:
        raise ProviderFailed("The queue is full.")

    trip.flight.begin(refuse)
    with pytest.raises(GatewayError, match="queue"):
        trip.leader.result()
    assert trip.ends == 1


@pytest.mark.parametrize("streamed", [True, False])
def test_a_failure_reaches_all_as_one(trips: Callable[..., Trip], streamed: bool) -> None:
    trip = trips(streamed=streamed)
    followers = [trip.join(streamed=streamed) for _ in range(3)]
    trip.flight.on_failure(ConnectFailed("refused"))
    errors = {id(error_of(waiter)) for waiter in (trip.leader, *followers)}
    assert len(errors) == 1
    assert trip.ends == 1
    assert not trip.stored


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_that_the_gateway_stumbles_over_leaves_nobody_waiting(
    trips: Callable[..., Trip], streamed: bool
) -> None:
    trip = trips(streamed=streamed)
    followers = [trip.join(streamed=False), trip.join(streamed=streamed)]

    def stumble(_body: bytes) -> None:
        raise ZeroDivisionError

    cast(Any, trip).store = stumble
    events = (chunk(), LAST, DONE)
    with pytest.raises(ZeroDivisionError):  # The loop is told.
        trip.streams(*events) if streamed else trip.lands()
    for waiter in (trip.leader, *followers):
        assert isinstance(error_of(waiter), InternalError)
    assert trip.ends >= 1
    assert not trip.flight.can_be_joined(streamed=streamed, include_usage=False)


def test_an_answer_that_is_no_entry_is_asked_for_again_by_those_who_want_a_stream(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    stream, whole = trip.join(streamed=True), trip.join(streamed=False)
    trip.lands(FILTERED)
    assert landed(stream) is None
    assert not stream.relayed
    assert landed(whole) is not None
    assert landed(whole) == landed(trip.leader)
    assert not trip.stored


def test_who_was_disappointed_joins_only_calls_of_its_own_form(trips: Callable[..., Trip]) -> None:
    for streamed in (True, False):
        flight = trips(streamed=streamed).flight
        assert flight.can_be_joined(streamed=streamed, include_usage=False, same_form=True)
        assert not flight.can_be_joined(streamed=not streamed, include_usage=False, same_form=True)
        assert flight.can_be_joined(streamed=not streamed, include_usage=False)


def test_a_stream_without_usage_cannot_be_joined_by_who_wants_it(trips: Callable[..., Trip]) -> None:
    flight = trips(streamed=True).flight
    assert not flight.can_be_joined(streamed=True, include_usage=True)
    assert flight.can_be_joined(streamed=True, include_usage=False)
