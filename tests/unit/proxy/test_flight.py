"""A call and those who wait for it: at whose pace it goes, and how much of it is held."""

from collections.abc import Callable

import pytest

from tests.support.flight import COST, DONE, LAST, Trip, chunk, client_of, landed
from tests.support.journal import event
from watchllm.domain.billable import counts
from watchllm.domain.usage_event import CANCELLED
from watchllm.proxy import shared_stream
from watchllm.proxy.streamed_flight import StreamedFlight


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_stream, "JOINABLE_BYTES", 1_000)
    monkeypatch.setattr(shared_stream, "MAX_LAG_BYTES", 10_000)


def held(trip: Trip) -> int:
    assert isinstance(trip.flight, StreamedFlight)
    return trip.flight._stream._held


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


@pytest.mark.parametrize(("status", "billed"), [(200, True), (429, False), (500, False)])
def test_a_stream_that_its_client_left_counts_if_it_was_answered_and_a_refusal_of_one_does_not(
    trips: Callable[..., Trip], status: int, billed: bool
) -> None:
    trip = trips(streamed=True)
    trip.answers(status)
    trip.flight.leave(trip.leader)
    first_byte_us = int(trip.leader.request.first_byte * 1e6) or None
    assert counts(event(status=499, streamed=True, ended=CANCELLED, first_byte_us=first_byte_us)) == billed
