"""A request that offers another protocol: its body is read, and what goes wrong with it is told as it is."""

import pytest

from tests.unit.wire.test_repeated_heads import Bed

OFFER = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("at_once", [False, True])
def test_what_a_handler_raises_is_reported_as_it_was_raised(at_once: bool) -> None:
    bed = Bed()
    for piece in [OFFER + b"raise"] if at_once else [OFFER, b"raise"]:
        bed.feed(piece)
    reported = [entry[1] for entry in bed.log if isinstance(entry, tuple) and entry[0] == "reported"]
    assert len(reported) == 1
    assert reported[0].startswith("ValueError")
