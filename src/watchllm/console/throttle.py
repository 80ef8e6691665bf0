"""How often a sign-in or a token may fail: a sliding window for each pair of account and address, in bounded memory.

When the table is full the pair that was tried longest ago is forgotten. To push a pair out that way takes MAX_PAIRS
attempts; of sign-ins, each costs a password hash: more than the window is long.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

MAX_FAILURES = 10
WINDOW_SECONDS = 300.0
MAX_PAIRS = 10_000


class FailureThrottle:
    """Counts attempts; `now` gives seconds of a clock that never goes back. Not for several threads."""

    def __init__(self, now: Callable[[], float], max_pairs: int = MAX_PAIRS) -> None:
        self._now = now
        self._max_pairs = max_pairs
        self._attempts: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def begin(self, account: str, address: str) -> float | None:
        """Count an attempt as failed until `succeeded` says otherwise (so that many at once do not slip through).

        None when it may be made, else the seconds until the next one may.
        """
        pair = _pair(account, address)
        attempts = self._attempts.get(pair)
        if attempts is None:
            attempts = self._attempts[pair] = deque(maxlen=MAX_FAILURES)
            if len(self._attempts) > self._max_pairs:
                self._attempts.popitem(last=False)
        self._attempts.move_to_end(pair)
        wait = self.wait(account, address)
        if wait is None:
            attempts.append(self._now())
        return wait

    def wait(self, account: str, address: str) -> float | None:
        """As `begin`, but nothing is counted."""
        attempts = self._attempts.get(_pair(account, address))
        if attempts is None or len(attempts) < MAX_FAILURES:
            return None
        over = attempts[0] + WINDOW_SECONDS - self._now()
        return over if over > 0 else None

    def succeeded(self, account: str, address: str) -> None:
        """Forget the failures of this pair."""
        self._attempts.pop(_pair(account, address), None)

    def __len__(self) -> int:
        return len(self._attempts)


def _pair(account: str, address: str) -> tuple[str, str]:
    # As users are looked up; cut, so that the table's memory is bounded by the number of its rows.
    return account.strip().lower()[:320], address[:64]
