"""A ledger that cannot be written keeps nobody's usage from being recorded, and is written anew when it can be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journal import Usage, event, usage_in
from watchllm.domain.ledger import NotTold, Periods, Place
from watchllm.journal.ledgered import Ledgered
from watchllm.journal.recorder import Batch, Position
from watchllm.stores.lmdb.ledger import LmdbLedger


class Ledger:
    """What the proxies are told of each key in all; cannot be told while `is_down`."""

    def __init__(self) -> None:
        self.totals: dict[str, tuple[int, int]] = {}
        self.told_up_to: dict[str, Place] = {}
        self.is_down = False

    def places(self) -> dict[str, Place]:
        return self.told_up_to

    def write(self, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        if self.is_down:
            raise NotTold("the disk is full")
        self.totals.update({name: periods["total"] for name, periods in spent.items() if name.startswith("key_")})
        self.told_up_to = self.told_up_to | places

    def replace(self, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        if not self.is_down:
            self.totals, self.told_up_to = {}, {}
        self.write(spent, places)


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[Usage]:
    with usage_in(tmp_path) as usage:
        yield usage


def batch(key: str, offset: int) -> Batch:
    made = Batch()
    made.settled.append((event(key_id=key, cost=10), "local"))
    made.positions["jnl_1"] = Position(0, offset)
    return made


@pytest.mark.parametrize("then", ["another batch", "nothing"])
def test_what_could_not_be_told_is_told_later_and_recorded_meanwhile(usage: Usage, then: str) -> None:
    ledger = Ledger()
    ledgered = Ledgered(usage.store(), ledger)
    ledgered.positions()
    ledgered.apply(batch("key_1", 100))
    ledger.is_down = True
    assert ledgered.apply(batch("key_2", 200)) == 1
    assert not ledgered.catch_up()
    assert ledgered.problem == "the disk is full"
    assert ledger.told_up_to == {"jnl_1": Place(0, 100)}, "no place without what was spent up to it"
    ledger.is_down = False
    if then == "nothing":
        assert not ledgered.catch_up()
        assert (ledger.totals, ledger.told_up_to) == (
            dict.fromkeys(("key_1", "key_2"), (1, 10)),
            {"jnl_1": Place(0, 200)},
        )
    else:
        ledgered.apply(batch("key_3", 300))
        assert ledger.totals == dict.fromkeys(("key_1", "key_2", "key_3"), (1, 10))
        assert ledger.told_up_to == {"jnl_1": Place(0, 300)}
    assert ledgered.problem is None
    assert len(usage.ids()) == (2 if then == "nothing" else 3)


def test_a_ledger_that_has_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchllm.stores.lmdb.ledger._MAP_SIZE", 64 << 10)
    ledger = LmdbLedger(tmp_path / "ledger")
    with pytest.raises(NotTold, match="ledger cannot be written"):
        ledger.write({f"key_{number}": {"total": (1, 1)} for number in range(10_000)}, {})
    assert ledger.places() == {}
    ledger.close()
