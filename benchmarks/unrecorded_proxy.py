"""A proxy that counts its hits but keeps no record of them: the yardstick of `hit_recorded`, and no way to run one.

No usage event is made, nothing goes into a journal, `explain` knows nothing. All else is the product's own composition.
"""

import asyncio
import os
import sys

from watchllm.cache.entry import Entry
from watchllm.compose import proxy
from watchllm.configuration import Configuration, load
from watchllm.proxy.history import History
from watchllm.proxy.request import Request
from watchllm.proxy.settle import Settlement
from watchllm.routing.resolve import Target


class _Forgetful(History):
    def hit(self, request: Request, named: str, key: bytes, entry: Entry) -> None:
        pass


class _Unrecorded(Settlement):
    def settle_hit(self, request: Request, target: Target) -> None:
        request.settled = True
        latency_us = int((request.head_sent - request.began) * 1e6)
        self.counters.hit(request.endpoint, latency_us, request.saved or 0)


class UnrecordedProxy(proxy.ProxyProcess):
    def __init__(self, configuration: Configuration, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(configuration, loop)
        services = self._services
        services.settlement = _Unrecorded(services.counters, services.settlement.journal, services.tenants.price)
        services.history = _Forgetful()


if __name__ == "__main__":
    proxy.ProxyProcess = UnrecordedProxy  # type: ignore[misc]
    sys.exit(proxy.run_proxy(load({}, os.environ)))
