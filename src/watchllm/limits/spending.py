"""What was spent in the current day, in the current month and in all, and what is held for calls under way."""

from __future__ import annotations

from functools import lru_cache
from time import gmtime
from typing import NamedTuple

from watchllm.domain.money import Nanos

DAY_SECONDS = 86_400


class Moment(NamedTuple):
    """A time of UTC as periods see it: the day's number since 1970, the month as year * 12 + month - 1."""

    day: int
    month: int


@lru_cache(64)
def moment_of_day(day: int) -> Moment:
    """The periods that the day of this number since 1970 belongs to."""
    date = gmtime(day * DAY_SECONDS)
    return Moment(day, date.tm_year * 12 + date.tm_mon - 1)


def moment(wall: float) -> Moment:
    """The periods of a time in epoch seconds."""
    return moment_of_day(int(wall) // DAY_SECONDS)


@lru_cache(64)
def month_ends(month: int) -> int:
    """The first second after a month, in epoch seconds."""
    from calendar import timegm  # once a month

    year, number = divmod(month + 1, 12)
    return timegm((year, number + 1, 1, 0, 0, 0))


class Spent(NamedTuple):
    """Billable requests of a month; nano-dollars of a day, of a month and of all time."""

    requests: int = 0
    day: Nanos = 0
    month: Nanos = 0
    total: Nanos = 0


class Spending:
    """The account of one subject. Use is booked in the periods in which its request was last let on, and left out of
    those that have passed; what is held counts in whatever periods it is asked in."""

    __slots__ = ("_at", "day", "held", "held_requests", "month", "requests", "total")

    def __init__(self, at: Moment) -> None:
        self._at = at
        self.requests = 0
        self.day: Nanos = 0
        self.month: Nanos = 0
        self.total: Nanos = 0
        self.held: Nanos = 0
        self.held_requests = 0

    def turn(self, at: Moment) -> None:
        """Begin the periods of `at` where they are newer."""
        if at is not self._at and at.day > self._at.day:
            self.day = 0
            if at.month > self._at.month:
                self.month = 0
                self.requests = 0
            self._at = at

    def book(self, at: Moment, nanos: Nanos, requests: int) -> None:
        """Add what a request that began at `at` cost, and whether it counts."""
        self.turn(at)
        self.total += nanos
        if at.month == self._at.month:
            self.month += nanos
            self.requests += requests
            if at.day == self._at.day:
                self.day += nanos

    def go_back(self, at: Moment) -> None:
        """The clock was set back: `at` are the periods now, of which nothing is known."""
        self._at = at
        self.requests = 0
        self.day = self.month = 0

    def forget(self) -> None:
        """Back to nothing spent; what is held stays."""
        self.requests = 0
        self.day = self.month = self.total = 0

    def add(self, at: Moment, before: Spent) -> None:
        """Add what was spent earlier, as of `at`."""
        self.turn(at)
        self.total += before.total
        if at.month == self._at.month:
            self.month += before.month
            self.requests += before.requests
            if at.day == self._at.day:
                self.day += before.day
