"""What follows from an upstream status or failure, and what a circuit breaker learns from it."""

import pytest

from watchllm.routing.outcome import Health, Verdict, health_of_error, health_of_status, is_sent, of_error, of_status
from watchllm.wire.types import (
    AddressRefused,
    BadMessage,
    ConnectFailed,
    PeerClosed,
    PoolFull,
    TimedOut,
    WireError,
)

STATUSES = {
    Verdict.RETRY: {408, 500, 502, 503, 504, 529},
    Verdict.NEXT_KEY: {401, 402, 403},
    Verdict.NEXT: {429},
}


def test_every_status_has_one_verdict() -> None:
    for status in range(100, 600):
        expected = next((verdict for verdict, statuses in STATUSES.items() if status in statuses), Verdict.ACCEPT)
        assert of_status(status) is expected, status


def test_only_5xx_is_a_failure_of_the_provider() -> None:
    for status in range(100, 600):
        assert health_of_status(status) is (Health.FAILED if status >= 500 else Health.WORKED), status


@pytest.mark.parametrize(
    ("error", "verdict", "health", "sent"),
    [
        (ConnectFailed("refused"), Verdict.RETRY, Health.FAILED, False),
        (AddressRefused("private"), Verdict.NEXT, Health.NOTHING, False),
        (PoolFull("taken"), Verdict.NEXT, Health.NOTHING, False),
        (TimedOut("connect", 1), Verdict.RETRY, Health.TIMED_OUT, False),
        (TimedOut("first_byte", 1), Verdict.RETRY, Health.TIMED_OUT, True),
        (TimedOut("total", 1), Verdict.RETRY, Health.TIMED_OUT, True),
        (PeerClosed("reset"), Verdict.RETRY, Health.FAILED, True),
        (BadMessage("no HTTP"), Verdict.RETRY, Health.FAILED, True),
    ],
)
def test_failures_before_the_first_byte(error: WireError, verdict: Verdict, health: Health, sent: bool) -> None:
    assert (of_error(error), health_of_error(error), is_sent(error)) == (verdict, health, sent)
