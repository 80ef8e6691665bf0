"""Redis for what may wait: the control plane's side, through redis-py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis, RedisError
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import NoScriptError
from redis.retry import Retry

from watchllm.setting_forms import PERCENT_ENCODED
from watchllm.stores.redis.address import Address, parse
from watchllm.stores.redis.client import Script
from watchllm.stores.redis.link import Argument

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
# Scripts of one round trip: who else asks Redis waits for those before.
_AT_ONCE = 200


class Blocking:
    """A connection, made when first used. Methods raise `redis.RedisError`."""

    def __init__(self, url: str, seconds: float = _ANSWER_SECONDS) -> None:
        """`seconds` for an answer. Raises ValueError for a URL that `address.parse` refuses."""
        self._address = parse(url)
        self._seconds = seconds
        self.shown = self._address.shown
        self._redis: Any = None

    @property
    def redis(self) -> Any:
        """The client of redis-py; of a cluster it asks for its nodes when it is made."""
        if self._redis is None:
            self._redis = _client(self._address, self._seconds)
        return self._redis

    def run(self, script: Script, keys: tuple[bytes, ...], *arguments: Argument) -> Any:
        """Run a script, which is sent where it is not known."""
        try:
            return self.redis.evalsha(script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return self.redis.eval(script.text, len(keys), *keys, *arguments)

    def run_each(self, script: Script, calls: Sequence[tuple[tuple[bytes, ...], Sequence[Argument]]]) -> list[Any]:
        """Run a script for each of these keys and arguments, many in one round trip; what each says."""
        replies: list[Any] = []
        for start in range(0, len(calls), _AT_ONCE):
            some = calls[start : start + _AT_ONCE]
            pipeline = self.redis.pipeline(transaction=False)
            for keys, arguments in some:
                # Its method is not there for a cluster, whose nodes each know their scripts.
                pipeline.execute_command("EVALSHA", script.digest, len(keys), *keys, *arguments)
            for (keys, arguments), reply in zip(some, pipeline.execute(raise_on_error=False), strict=True):
                if isinstance(reply, NoScriptError):
                    replies.append(self.run(script, keys, *arguments))
                elif isinstance(reply, Exception):
                    raise reply
                else:
                    replies.append(reply)
        return replies

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()


def reason(error: RedisError) -> str:
    """What Redis, or the way to it, said, in words for whoever has configured it."""
    text = str(error)
    if "NOAUTH" in text or "HELLO must be called" in text:
        return "it asks for a password; put it into the URL: redis://:PASSWORD@HOST:PORT, or redis://USER:PASSWORD@…"
    if "WRONGPASS" in text or "invalid username-password pair" in text:
        return f"it refuses the user or the password; {PERCENT_ENCODED}"
    return text


def _client(address: Address, seconds: float) -> Any:
    common: dict[str, Any] = {
        "username": address.user,
        "password": address.password,
        "socket_connect_timeout": min(_CONNECT_SECONDS, seconds),
        "socket_timeout": seconds,
        "ssl": address.tls,
    }
    if seconds < _ANSWER_SECONDS:
        common["retry"] = Retry(NoBackoff(), 0)
    elif not address.cluster:
        # A server that was restarted is there again soon. One that does not answer is not asked twice, as redis-py
        # would, within each try to connect as well: whoever waits for a command would wait for a minute.
        common["retry"] = Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), 3, (NotConnected,))
    if address.ca_file is not None:
        common["ssl_ca_certs"] = address.ca_file
    if address.cluster:
        nodes = [ClusterNode(host, port) for host, port in address.seeds]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **common)
    ((host, port),) = address.seeds
    return Redis(host, port, address.database, **common)
