"""A body that comes again is recognised: what it asks for is the same object, and nobody is told that it is new."""

from types import SimpleNamespace
from typing import cast

from watchllm.cache.canonical import NO_DEFAULTS
from watchllm.cache.key import KeyHash
from watchllm.domain.snapshot import Vendor
from watchllm.providers.endpoints import ENDPOINTS
from watchllm.proxy.asked import Reader
from watchllm.proxy.tenant import Tenant
from watchllm.routing.route import Choice, Route
from watchllm.routing.target import Target

BODY = b'{"model":"m","messages":[]}'


def test_only_the_first_sight_of_a_body_is_the_newest() -> None:
    target = Target("openai", Vendor("openai", "https://x"), "https://x", "m", None, None, trusted=True)
    tenant = SimpleNamespace(
        partition=b"p" * 16,
        bodies={},
        narrowing=b"",
        project=SimpleNamespace(id="prj_1"),
        route=lambda model: Route(model, (Choice(1, (target,)),)),
        defaults=lambda _vendor, _family: NO_DEFAULTS,
    )
    reader = Reader(KeyHash(bytes(32)))

    def read(body: bytes, user: str | None = None) -> bool:
        asked = reader.read(cast(Tenant, tenant), ENDPOINTS[0], body, {}, b"", user)
        is_new = asked is reader.newest
        reader.newest = None
        return is_new

    assert [read(BODY), read(BODY), read(BODY + b" "), read(BODY)] == [True, False, True, False]
    # With a user of its own a body is read anew each time, and remembered by nobody.
    assert [read(BODY, "ann"), read(BODY, "ann")] == [True, True]
