"""A provider key goes up as its vendor wants it, each in its own header line."""

import asyncio

from watchllm.domain.sealing import Keyring, Sealer
from watchllm.domain.snapshot import ProviderKeyRecord, Vendor
from watchllm.proxy.upstream import Destinations
from watchllm.routing.target import Target
from watchllm.wire.types import Origin

OWN = ProviderKeyRecord("pk_1", "mine", Sealer("m" * 40).seal(b"sk-own", "pk_1"), "https://mine.test/v1")


async def unused() -> Origin:
    raise AssertionError("there is no simulator here")


def test_one_key_is_told_to_each_vendor_in_its_own_way() -> None:
    destinations = Destinations(Keyring(lambda: ["m" * 40]), unused, allow_private=False)

    def credential(header: str, scheme: str) -> bytes:
        vendor = Vendor("mine", "", auth_header=header, auth_scheme=scheme)
        target = Target("mine", vendor, "https://mine.test/v1", "m", OWN, None, trusted=False)
        return asyncio.run(destinations.of(target)).credential

    for _ in range(2):
        assert credential("authorization", "Bearer") == b"authorization: Bearer sk-own\r\n"
        assert credential("authorization", "Token") == b"authorization: Token sk-own\r\n"
        assert credential("x-api-key", "") == b"x-api-key: sk-own\r\n"
