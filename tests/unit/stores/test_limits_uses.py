"""What is used of minutes and Redis is told of later, against a model that remembers every use by itself."""

import random
from dataclasses import dataclass

import pytest

from watchllm.stores.redis.limits_uses import Uses

A, B = b"w|t|key_1", b"w|u|key_1"


def test_what_redis_was_told_is_not_made_up_for_by_what_others_use() -> None:
    uses = Uses()
    early = uses.add(A, 100)
    assert uses.send() == {A: 100}
    late = uses.add(A, 50)
    uses.sent(told=True)
    uses.take_back(A, 90, early)
    assert uses.untold(A) == 50
    uses.take_back(A, 20, late)
    assert uses.send() == {A: 30}


def test_what_did_not_arrive_can_be_taken_back_still() -> None:
    uses = Uses()
    early = uses.add(A, 100)
    uses.send()
    uses.take_back(A, 30, early)
    assert uses.untold(A) == 70
    uses.sent(told=False)
    uses.take_back(A, 70, early)
    assert not uses
    assert uses.send() == {}


@dataclass
class Use:
    window: bytes
    amount: int
    number: int
    told: bool = False
    under_way: bool = False


@pytest.mark.parametrize("seed", range(50))
def test_nothing_is_told_twice_or_lost_whatever_is_taken_back_and_when(seed: int) -> None:
    chance = random.Random(seed)
    uses, made = Uses(), list[Use]()
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
        elif any(one.under_way for one in made):
            told = chance.random() < 0.5
            uses.sent(told=told)
            for one in made:
                one.told, one.under_way = one.told or (told and one.under_way), False
        elif what == "report":
            sent = uses.send()
            for one in made:
                one.under_way = not one.told
            for window in (A, B):
                assert sent.get(window, 0) == sum(one.amount for one in made if one.under_way and one.window == window)
            if not any(one.under_way for one in made):
                uses.sent(told=True)
        for window in (A, B):
            assert uses.untold(window) == sum(one.amount for one in made if not one.told and one.window == window)
