"""Ten failures in five minutes for an account from an address, in bounded memory."""

from watchllm.console.throttle import MAX_FAILURES, WINDOW_SECONDS, FailureThrottle


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_eleventh_attempt_in_the_window_must_wait_until_the_first_leaves_it() -> None:
    clock = Clock()
    throttle = FailureThrottle(clock)
    for _ in range(MAX_FAILURES):
        assert throttle.begin("a@b", "192.0.2.1") is None
        clock.now += 10
    assert throttle.begin("a@b", "192.0.2.1") == WINDOW_SECONDS - 100
    clock.now += WINDOW_SECONDS - 100
    assert throttle.begin("a@b", "192.0.2.1") is None
    assert throttle.begin("a@b", "192.0.2.1") == 10


def test_refused_attempts_do_not_prolong_the_wait() -> None:
    clock = Clock()
    throttle = FailureThrottle(clock)
    for _ in range(MAX_FAILURES * 5):
        throttle.begin("a@b", "192.0.2.1")
    clock.now += WINDOW_SECONDS
    assert throttle.begin("a@b", "192.0.2.1") is None


def test_the_spelling_of_an_account_is_no_way_around_and_others_are_not_held_up() -> None:
    throttle = FailureThrottle(Clock())
    for spelling in ("a@b", "A@B", " a@b "):
        for _ in range(4):
            throttle.begin(spelling, "192.0.2.1")
    assert throttle.begin("a@b", "192.0.2.1") is not None
    assert throttle.begin("c@d", "192.0.2.1") is None
    assert throttle.begin("a@b", "192.0.2.2") is None


def test_a_success_forgets_the_failures() -> None:
    throttle = FailureThrottle(Clock())
    for _ in range(MAX_FAILURES):
        throttle.begin("a@b", "192.0.2.1")
    throttle.succeeded("A@b", "192.0.2.1")
    assert [throttle.begin("a@b", "192.0.2.1") for _ in range(MAX_FAILURES)] == [None] * MAX_FAILURES


def test_memory_is_bounded_and_who_is_tried_now_is_kept() -> None:
    throttle = FailureThrottle(Clock(), max_pairs=100)
    for number in range(1000):
        throttle.begin("target@b", "192.0.2.1")
        throttle.begin(f"{number}@{'x' * 10_000}", "192.0.2.1")
    assert len(throttle) == 100
    assert throttle.begin("target@b", "192.0.2.1") is not None


def test_asking_how_long_to_wait_counts_nothing() -> None:
    clock = Clock()
    throttle = FailureThrottle(clock)
    for _ in range(MAX_FAILURES * 2):
        assert throttle.wait("a@b", "192.0.2.1") is None
    assert len(throttle) == 0
    for _ in range(MAX_FAILURES):
        assert throttle.begin("a@b", "192.0.2.1") is None
    assert throttle.wait("A@b", "192.0.2.1") == WINDOW_SECONDS
    clock.now += WINDOW_SECONDS
    assert throttle.wait("a@b", "192.0.2.1") is None
