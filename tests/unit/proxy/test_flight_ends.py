"""How a call ends for each of those who wait for it."""

import gc
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.support.flight import DONE, FILTERED, LAST, Trip, chunk, client_of, error_of, landed
from watchllm.domain.errors import GatewayError, InternalError, ProviderFailed, TimedOut
from watchllm.wire.types import ConnectFailed, PeerClosed


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


@pytest.mark.parametrize("is_sent", [True, False])
def test_who_leaves_is_charged_only_for_what_was_sent(trips: Callable[..., Trip], is_sent: bool) -> None:
    trip = trips(streamed=False)
    trip.leader.request.calls = 1
    trip.provider.is_sent = is_sent
    trip.flight.leave(trip.leader)
    assert (trip.leader.request.cost is not None) is is_sent


def test_an_error_that_nobody_waits_for_any_more_is_no_complaint(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    trip.flight.on_failure(PeerClosed("gone"))
    trip.flight.leave(trip.leader)  # in the same turn, before its request was told
    del trip.leader, trip.flight
    gc.collect()
    assert not trip.complaints


class Refused:
    """Calls of which the first cannot be made."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def begin(self) -> None:
        raise self._error


def test_a_call_that_cannot_be_made_fails_for_its_leader(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)

    trip.flight.begin(cast(Any, Refused(ProviderFailed("The queue is full."))))
    with pytest.raises(GatewayError, match="queue"):
        trip.leader.result()
    assert trip.ends == 1


def test_a_call_that_a_mistake_of_ours_keeps_from_being_made_cannot_be_joined(trips: Callable[..., Trip]) -> None:
    trip = trips(streamed=False)
    with pytest.raises(RuntimeError):
        trip.flight.begin(cast(Any, Refused(RuntimeError("a mistake"))))
    with pytest.raises(GatewayError, match="inside the gateway"):
        trip.leader.result()
    assert trip.ends == 1
    assert not trip.flight.can_be_joined(streamed=False, include_usage=False)


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
