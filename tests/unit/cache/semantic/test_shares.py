"""One project that wants every place leaves some to others, and gets them back."""

from watchllm.cache.semantic.shares import Shares

GREEDY, OTHER, THIRD = b"g" * 16, b"o" * 16, b"t" * 16


def taken(shares: Shares, project: bytes) -> int:
    """How many it gets when it takes all that it can."""
    count = 0
    while shares.take(project):
        count += 1
    return count


def test_who_asks_for_all_gets_half_and_every_other_finds_one() -> None:
    shares = Shares(64)
    assert taken(shares, GREEDY) == 32
    assert [taken(shares, project) for project in (OTHER, THIRD)] == [16, 8]
    assert all(shares.take(bytes([number]) * 16) for number in range(4))


def test_there_are_never_more_than_there_are() -> None:
    shares = Shares(8)
    assert sum(shares.take(bytes([number]) * 16) for number in range(100)) == 8


def test_what_is_given_back_can_be_had_again() -> None:
    shares = Shares(4)
    assert taken(shares, GREEDY) == 2
    shares.give_back(GREEDY)
    assert [shares.take(GREEDY), shares.take(GREEDY), shares.take(OTHER)] == [True, False, True]
    for project in (GREEDY, GREEDY, OTHER):
        shares.give_back(project)
    assert taken(shares, OTHER) == 2
