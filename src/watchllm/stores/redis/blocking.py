"""Redis for what may wait: the control plane's side, through redis-py."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoScriptError

from watchllm.stores.redis.address import parse
from watchllm.stores.redis.client import Script
from watchllm.stores.redis.link import Argument

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 10.0


class Blocking:
    """A connection, made when first used. Methods raise `redis.RedisError`."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that `address.parse` refuses."""
        address = parse(url)
        self.shown = address.shown
        common: dict[str, Any] = {
            "username": address.user,
            "password": address.password,
            "socket_connect_timeout": _CONNECT_SECONDS,
            "socket_timeout": _ANSWER_SECONDS,
            "ssl": address.tls,
        }
        if address.ca_file is not None:
            common["ssl_ca_certs"] = address.ca_file
        self.redis: Any
        if address.cluster:
            nodes = [ClusterNode(host, port) for host, port in address.seeds]  # type: ignore[no-untyped-call]
            self.redis = RedisCluster(startup_nodes=nodes, **common)
        else:
            ((host, port),) = address.seeds
            self.redis = Redis(host, port, address.database, **common)

    def run(self, script: Script, keys: tuple[bytes, ...], *arguments: Argument) -> Any:
        """Run a script, which is sent where it is not known."""
        try:
            return self.redis.evalsha(script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return self.redis.eval(script.text, len(keys), *keys, *arguments)

    def close(self) -> None:
        self.redis.close()
