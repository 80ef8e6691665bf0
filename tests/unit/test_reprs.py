"""What holds a secret does not show it: a repr ends in tracebacks and logs."""

import asyncio

import pytest

from watchllm.configuration import InstanceProvider
from watchllm.domain.sealing import Keyring, Sealer
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord, Vendor
from watchllm.proxy.approach import Approach
from watchllm.proxy.upstream import Destination, Destinations
from watchllm.routing.resolve import InstanceCredential, Router, Target
from watchllm.wire.types import Origin

KEY = "sk-hidden-0123456789"
SEALER = Sealer("m" * 40)
KEYRING = Keyring(lambda: ["m" * 40])
OWN = ProviderKeyRecord(
    "pk_1", "openai", SEALER.seal(KEY.encode(), "pk_1"), "https://user:hidden@example.com/hidden/v1"
)
PROJECT = ProjectRecord("prj_1", "org_1", "test", provider_keys=(OWN,))
INSTANCE = InstanceCredential(KEY, "https://user:hidden@example.com/v1")
VENDOR = Vendor("openai", "https://api.openai.com/v1", families=("gpt-",))
TARGETS = {
    "own": Router([VENDOR], {}).resolve("gpt-4o", PROJECT, test_key=False),
    "instance": Router([VENDOR], {"openai": INSTANCE}).resolve(
        "gpt-4o", ProjectRecord("prj_1", "org_1", "test"), test_key=False
    ),
}


async def unused() -> Origin:
    raise AssertionError("there is no simulator here")


def destination(target: Target) -> Destination:
    return asyncio.run(Destinations(KEYRING, unused, allow_private=False).of(target))


HOLDERS = {
    "instance credential": INSTANCE,
    "instance provider": InstanceProvider(KEY, "https://user:hidden@example.com/v1"),
    "provider key": OWN,
    "project": PROJECT,
    "sealer": SEALER,
    "keyring": KEYRING,
    **{f"target of {name} key": target for name, target in TARGETS.items()},
    "destination": destination(TARGETS["instance"]),
    "destination of own key": destination(TARGETS["own"]),
    "approach": Approach(b"/hidden/v1/models", b"authorization: Bearer %b\r\n" % KEY.encode(), b'{"x":"hidden"}'),
}


def test_the_examples_do_hold_what_is_not_to_be_shown() -> None:
    assert TARGETS["instance"].instance_key == KEY
    assert "hidden" in TARGETS["own"].base_url
    for kind in ("destination", "destination of own key"):
        held = HOLDERS[kind]
        assert isinstance(held, Destination)
        assert KEY.encode() in held.credential


@pytest.mark.parametrize("kind", HOLDERS)
def test_no_repr_shows_a_secret(kind: str) -> None:
    for text in (repr(HOLDERS[kind]), str(HOLDERS[kind]), f"{HOLDERS[kind]}", repr([HOLDERS[kind]])):
        assert "hidden" not in text
        assert repr(OWN.sealed) not in text


def test_a_repr_says_what_helps() -> None:
    assert repr(TARGETS["own"]) == (
        "Target(provider='openai', model='gpt-4o', base_url=***, own_key='pk_1', instance_key=None, trusted=False)"
    )
    assert repr(InstanceCredential(None, "")) == "InstanceCredential(api_key=None, base_url='')"
    assert repr(HOLDERS["destination"]) == "Destination(host='example.com', port=443, own_key=False)"
    assert repr(HOLDERS["approach"]) == "Approach(method=b'POST', body of 14 bytes, dropped=())"
