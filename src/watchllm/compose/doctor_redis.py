"""Checks the Redis that is configured: whether it answers, how soon, and whether it may keep what must not be lost."""

import time
from collections.abc import Iterator
from typing import Any

from redis import RedisError

from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.configuration import Configuration
from watchllm.stores.redis.blocking import Blocking, reason

_SLOW_SECONDS = 0.010
_ADVICE = "see WATCHLLM_REDIS_URL; proxies serve with the last snapshot, and without the cache, until it answers"


def examine_redis(configuration: Configuration) -> Iterator[Check]:
    """Nothing where none is configured."""
    if configuration.redis_url is None:
        return
    try:
        blocking = Blocking(configuration.redis_url)
    except ValueError as error:
        yield Check("redis", FAILED, f"WATCHLLM_REDIS_URL is not valid; expected {error}", "correct it")
        return
    try:
        blocking.redis.ping()
        began = time.perf_counter()
        blocking.redis.ping()
        took = time.perf_counter() - began
        policy = str(_info(blocking, "maxmemory_policy") or "noeviction")
        bound = int(_info(blocking, "maxmemory") or 0)
    except RedisError as error:
        yield Check("redis", FAILED, f"Redis at {blocking.shown} cannot be used: {reason(error)}", _ADVICE)
        return
    finally:
        blocking.close()
    where = f"{blocking.shown} answers in {took * 1e3:.1f} ms"
    if took > _SLOW_SECONDS:
        yield Check("redis", WARNING, f"{where}: every look-up waits that long", "put proxies and Redis side by side")
    else:
        yield Check("redis", OK, where)
    yield _memory(policy, bound)


def _memory(policy: str, bound: int) -> Check:
    advice = "CONFIG SET maxmemory-policy volatile-lru"
    if policy.startswith("allkeys"):
        return Check("redis memory", FAILED, f"{policy} lets it evict the snapshot and the limits, too", advice)
    if not bound:
        detail = "it has no bound (maxmemory): answers fill the memory of its machine"
        return Check("redis memory", WARNING, detail, f"set maxmemory, and {advice}")
    if not policy.startswith("volatile"):
        detail = f"{policy}: when its {bound} bytes are full it refuses everything; a volatile policy evicts answers"
        return Check("redis memory", FAILED, detail, advice)
    if policy != "volatile-lru":
        # The first evicts what expires soonest, the others what is new or anything: use of a minute is all of that.
        detail = f"{policy} may evict what was used of limits before old answers: more than a limit could be used then"
        return Check("redis memory", WARNING, detail, advice)
    return Check("redis memory", OK, f"{policy}, {bound} bytes")


def _info(blocking: Blocking, name: str) -> Any:
    """A field of INFO memory, of any node."""
    found = blocking.redis.info("memory")
    if name not in found:
        found = next(iter(found.values()), {})
    return found.get(name)
