"""How long to wait before a further try: full jitter, what the provider asked for, and what time is left."""

import random
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.routing.backoff import CAP_SECONDS, MAX_RETRY_AFTER_SECONDS, delay, retry_after

NOW = 1_790_000_000.25


@pytest.mark.parametrize(("tries", "bound"), [(1, 0.25), (2, 0.5), (3, 1.0), (6, 8.0), (7, 8.0), (10**9, 8.0)])
def test_the_delay_is_drawn_evenly_below_a_bound_that_doubles(tries: int, bound: float) -> None:
    assert delay(tries, random=lambda: 0.0) == 0.0
    assert delay(tries, random=lambda: 0.5) == pytest.approx(bound / 2)
    assert delay(tries, random=lambda: 0.999) == pytest.approx(bound * 0.999)


def test_clients_that_failed_together_do_not_come_back_together() -> None:
    choose = random.Random(1)
    delays = [delay(4, random=choose.random) for _ in range(2000)]
    buckets = [sum(1 for one in delays if one is not None and low <= one < low + 0.2) for low in (0.0, 0.6, 1.2, 1.8)]
    assert all(150 < count < 250 for count in buckets), buckets


def test_what_the_provider_asks_for_is_waited_for_and_the_crowd_spread() -> None:
    assert delay(1, random=lambda: 0.0, retry_after=3.0) == 3.0
    assert delay(1, random=lambda: 0.8, retry_after=3.0) == pytest.approx(3.2)
    assert delay(9, random=lambda: 0.5, retry_after=0.02) == pytest.approx(0.03)


def test_who_asks_for_too_long_is_not_asked_again() -> None:
    assert delay(1, random=lambda: 0.0, retry_after=MAX_RETRY_AFTER_SECONDS) == MAX_RETRY_AFTER_SECONDS
    assert delay(1, random=lambda: 0.0, retry_after=MAX_RETRY_AFTER_SECONDS + 0.001) is None
    assert delay(1, random=lambda: 0.0, retry_after=3.0, left=3.0) is None
    assert delay(1, random=lambda: 0.0, left=0.0) is None
    assert delay(1, random=lambda: 0.0, left=-1.0) is None


@given(
    tries=st.integers(0, 100),
    drawn=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.floats(-10, 1000),
    left=st.none() | st.floats(-10, 1000),
)
def test_never_longer_than_is_left_nor_shorter_than_was_asked(
    tries: int, drawn: float, asked: float | None, left: float | None
) -> None:
    waited = delay(tries, random=lambda: drawn, retry_after=asked, left=left)
    if waited is None:
        assert (asked is not None and asked > MAX_RETRY_AFTER_SECONDS) or (
            left is not None and left <= max(asked or 0.0, 0.0)
        )
        return
    assert 0 <= waited <= MAX_RETRY_AFTER_SECONDS + CAP_SECONDS
    assert asked is None or waited >= asked
    assert left is None or waited < left


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"7")], 7.0),
        ([(b"retry-after", b" 1.5 ")], 1.5),
        ([(b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", b"7"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after-ms", b"soon"), (b"retry-after", b"7")], 7.0),
        ([(b"retry-after", formatdate(NOW + 30, usegmt=True).encode())], 29.75),
        ([(b"retry-after", formatdate(NOW - 30, usegmt=True).encode())], 0.0),
        ([(b"retry-after", b"Wed, 21 Oct 2015 07:28:00 -0000")], 0.0),
        ([(b"retry-after", b"Wed, 21 Oct 9999999 07:28:00 GMT")], None),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"1e3")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"1_0")], None),
        ([(b"retry-after", b"\xb2")], None),
        ([(b"retry-after", b"9" * 400)], None),
        ([(b"retry-after", b".")], None),
        ([(b"retry-after", b"")], None),
        ([(b"x-other", b"7")], None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


@given(st.lists(st.tuples(st.sampled_from([b"retry-after", b"retry-after-ms"]), st.binary(max_size=60))))
def test_whatever_a_provider_writes_is_a_delay_or_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    asked = retry_after(headers, NOW)
    assert asked is None or asked >= 0.0
