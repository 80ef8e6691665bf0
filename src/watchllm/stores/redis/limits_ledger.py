"""The recorder's side of limits in Redis: what the database says was spent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import TypeVar

from redis import RedisError

from watchllm.domain.ledger import Periods, Place
from watchllm.journal.shared_ledger import NotTold
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.limits_layout import CHANNEL, KEPT, PLACES, WANTED, account_of, place_text, prefix_of
from watchllm.stores.redis.limits_scripts import COUNTED, LEDGER
from watchllm.stores.redis.link import Argument

# Live proxies join an account that is begun anew as soon as they are told; those that do not are not waited for longer.
_GRACE_MS = 1_500
_AT_ONCE = 500
_LARGEST = 1 << 53

_IF_KEPT, _WHOLE, _PART_OF_WHOLE = "0", "1", "2"

T = TypeVar("T")


class RedisAccounts:
    """Implements `journal.shared_ledger.Accounts`."""

    def __init__(self, redis: Blocking) -> None:
        self._redis = redis

    def wanted(self) -> set[str]:
        return self._ask(lambda: {name.decode() for name in self._redis.redis.smembers(WANTED)})

    def kept(self) -> set[str]:
        return self._ask(lambda: {name.decode() for name in self._redis.redis.smembers(KEPT)})

    def write(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        self._write(organization, spent, places, (_IF_KEPT, _IF_KEPT))

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        # Before it is: whoever ends in between has it written again.
        self._ask(lambda: self._redis.redis.sadd(KEPT, organization))
        self._write(organization, spent, places, (_PART_OF_WHOLE, _WHOLE))
        self._ask(lambda: self._redis.redis.srem(WANTED, organization))

    def counted(self, places: dict[str, Place]) -> None:
        finished = [series for series, place in places.items() if place.finished]
        under_way = {series: place_text(place) for series, place in places.items() if not place.finished}
        if finished:
            self._ask(lambda: self._redis.redis.hdel(PLACES, *finished))
        if under_way:
            arguments = [text for pair in under_way.items() for text in pair]
            self._ask(lambda: self._redis.run(COUNTED, (PLACES,), *arguments))

    def _write(
        self, organization: str, spent: dict[str, Periods], places: dict[str, Place], modes: tuple[str, str]
    ) -> None:
        names = sorted(spent)
        while len(names) > _AT_ONCE:
            some, names = names[:_AT_ONCE], names[_AT_ONCE:]
            self._run(organization, modes[0], {}, {name: spent[name] for name in some})
        # With the last of it: only then may be forgotten what the proxies have told of what is before.
        self._run(organization, modes[1], places, {name: spent[name] for name in names})

    def _run(self, organization: str, mode: str, places: dict[str, Place], spent: dict[str, Periods]) -> None:
        awaited = [series for series, place in places.items() if not place.finished]
        rows = [
            (subject, *_slot(period), min(nanos, _LARGEST), requests)
            for subject, periods in spent.items()
            for period, (requests, nanos) in periods.items()
        ]
        arguments: list[Argument] = [prefix_of(organization), mode, organization, CHANNEL, _GRACE_MS]
        arguments += [len(places), *(text for name, place in places.items() for text in (name, place_text(place)))]
        arguments += [len(awaited), *awaited]
        arguments += [len(rows), *(value for row in rows for value in row)]
        self._ask(lambda: self._redis.run(LEDGER, (account_of(organization),), *arguments))

    def _ask(self, what: Callable[[], T]) -> T:
        try:
            return what()
        except RedisError as error:
            raise NotTold(f"Redis at {self._redis.shown} cannot be told who has spent what: {error}") from None


def _slot(period: str) -> tuple[str, int]:
    """The slot of limits_layout in which a period of `domain.ledger.Periods` is, and its number."""
    if period == "total":
        return "t", 0
    if len(period) == len("2026-11"):
        month = int(period[:4]) * 12 + int(period[5:]) - 1
        return f"m{month % 3}", month
    day = (date.fromisoformat(period) - date(1970, 1, 1)).days
    return f"d{day % 4}", day
