"""What is used of minutes and Redis is told of later, against a model that remembers every use by itself."""

import random
from dataclasses import dataclass
from itertools import count, product

import pytest

from watchllm.stores.redis.limits_uses import Uses

A, B = b"w|t|key_1", b"w|u|key_1"


def test_what_redis_was_told_is_not_made_up_for_by_what_others_use() -> None:
    uses = Uses(count(1))
    early = uses.add(A, 100)
    assert uses.send() == {1: {A: 100}}
    late = uses.add(A, 50)
    uses.arrived()
    uses.take_back(A, 90, early)
    assert uses.untold(A) == 50
    uses.take_back(A, 20, late)
    assert uses.send() == {2: {A: 30}}


def test_what_may_not_have_arrived_is_told_again_as_the_same() -> None:
    uses = Uses(count(1))
    uses.add(A, 100)
    uses.send()
    uses.add(A, 50)
    assert uses.send() == uses.send() == {1: {A: 100}, 2: {A: 50}}
    uses.arrived()
    assert not uses
    assert uses.send() == {}


def test_what_did_not_arrive_can_be_taken_back_still() -> None:
    uses = Uses(count(1))
    early = uses.add(A, 100)
    uses.send()
    uses.take_back(A, 30, early)
    assert uses.untold(A) == 70
    uses.take_back(A, 70, early)
    assert uses.send() == {1: {}}


def test_however_long_nothing_arrives_what_is_remembered_is_bounded() -> None:
    uses = Uses(count(1))
    for _ in range(1000):
        uses.add(A, 1)
        uses.send()
    assert len(uses.send()) <= 64
    assert uses.untold(A) == 1000


@dataclass
class Use:
    window: bytes
    amount: int
    number: int
    told: bool = False


@pytest.mark.parametrize("seed", range(50))
def test_nothing_is_told_twice_or_lost_whatever_is_taken_back_and_when(seed: int) -> None:
    chance = random.Random(seed)
    uses, made = Uses(count(1)), list[Use]()
    for _ in range(300):
        what = chance.choice(("add", "add", "take back", "report"))
        if what == "add":
            window, amount = chance.choice((A, B)), chance.randint(1, 9)
            made.append(Use(window, amount, uses.add(window, amount)))
        elif what == "take back" and made:
            one = chance.choice(made)
            amount = chance.randint(0, one.amount)
            uses.take_back(one.window, amount, one.number)
            if not one.told:
                one.amount -= amount
        elif what == "report":
            sent = uses.send()
            assert list(sent) == sorted(sent)
            for number, window in product(sent, (A, B)):
                under_it = [one.amount for one in made if one.number == number and one.window == window]
                assert sent[number].get(window, 0) == sum(under_it)
            if chance.random() < 0.5:
                uses.arrived()
                for one in made:
                    one.told = True
        for window in (A, B):
            assert uses.untold(window) == sum(one.amount for one in made if not one.told and one.window == window)
