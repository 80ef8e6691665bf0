"""Which network an address is in, however either is written."""

import pytest

from watchllm.proxy.client_address import client_address, is_within


@pytest.mark.parametrize(
    ("address", "networks", "is_in"),
    [
        ("192.0.2.7", ("::ffff:192.0.2.7/128",), True),
        ("192.0.2.8", ("::ffff:192.0.2.7/128",), False),
        ("192.0.2.8", ("::ffff:192.0.2.0/120",), True),
        ("192.0.2.8", ("::ffff:0:0/96",), True),
        ("2001:db8::7", ("::ffff:0:0/96",), False),
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.2.7", ("::/0",), False),
        ("2001:db8::7", ("0.0.0.0/0",), False),
        ("192.0.2.7:4711", ("192.0.2.7/32",), True),
        ("[2001:db8::7]:443", ("2001:db8::/32",), True),
        ("[2001:db8::7]", ("2001:db8::/32",), True),
        ("2001:db8::7", ("2001:db8::/32",), True),
        ("192.0.2.7:4711", ("192.0.2.8/32",), False),
        ("unknown", ("0.0.0.0/0", "::/0"), False),
        ("", ("0.0.0.0/0", "::/0"), False),
    ],
)
def test_an_address_is_found_in_its_network(address: str, networks: tuple[str, ...], is_in: bool) -> None:
    assert is_within(address, networks) is is_in


def test_a_balancer_that_names_ports_is_understood() -> None:
    hops = b"203.0.113.9, 198.51.100.3:5000, 10.0.0.8:443"
    assert is_within(client_address("10.0.0.7", hops, ("10.0.0.0/8",)), ("198.51.100.3/32",))
