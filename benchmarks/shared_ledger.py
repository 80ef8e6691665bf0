"""What it costs a recorder to tell Redis, after a batch, what 1,000 organizations have spent.

python -m benchmarks.shared_ledger
"""

import statistics
import tempfile
import time
from pathlib import Path

from tests.support.redis_server import RedisServer
from watchllm.domain.ledger import Periods, Place
from watchllm.stores.lmdb.snapshot_copy import NOTHING
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.limits_ledger import RedisAccounts

_ORGANIZATIONS, _BATCHES = 1_000, 20


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder) / "redis")
        redis = Blocking(server.url)
        try:
            _measure(RedisAccounts(redis, "installation", "sqlite://", lambda: NOTHING))
        finally:
            redis.close()
            server.stop()


def _measure(accounts: RedisAccounts) -> None:
    spent = {f"org_{number:032d}": _spent(number) for number in range(_ORGANIZATIONS)}
    places = {"jrn_1": Place(0, 100), "jrn_2": Place(0, 100)}
    for organization, of_it in spent.items():
        accounts.write_all(organization, of_it, places)
    together, alone = [], []
    for number in range(_BATCHES):
        places = {name: Place(1, number) for name in places}
        began = time.perf_counter()
        accounts.write(spent, places, {})
        together.append(time.perf_counter() - began)
        began = time.perf_counter()
        for organization, of_it in spent.items():
            accounts.write({organization: of_it}, places, {})
        alone.append(time.perf_counter() - began)
    print(f"{_ORGANIZATIONS:,} organizations, median of {_BATCHES}: {statistics.median(together) * 1e3:6.0f} ms")
    print(f"the same, each by a round trip of its own: {statistics.median(alone) * 1e3:6.0f} ms")


def _spent(number: int) -> dict[str, Periods]:
    periods: Periods = {"total": (number, number), "2026-11": (number, number), "2026-11-29": (number, number)}
    return {f"{kind}_{number:032d}": dict(periods) for kind in ("org", "prj", "key")}


if __name__ == "__main__":
    main()
