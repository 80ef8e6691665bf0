"""Ids are UUIDs of version 7: ordered by time, never the same twice, whichever way they were made."""

import os
from uuid import RFC_4122, UUID

from watchllm.domain import ids


def test_request_ids_are_version_7_of_the_given_time_and_differ() -> None:
    made = [ids.new_request_id(1_700_000_000_123) for _ in range(2_000)]
    assert len(set(made)) == 2_000
    for request_id in made:
        assert ids.has_form(request_id, ids.REQUEST)
        parsed = UUID(request_id.removeprefix(ids.REQUEST))
        assert (parsed.version, parsed.variant, parsed.int >> 80) == (7, RFC_4122, 1_700_000_000_123)
    # Every bit that is to be random takes both values.
    numbers = [UUID(request_id.removeprefix(ids.REQUEST)).int for request_id in made]
    fixed = 0xF << 76 | 0x3 << 62
    varying = 0
    for number in numbers:
        varying |= number ^ numbers[0]
    assert varying == (1 << 80) - 1 & ~fixed


def test_a_forked_child_mints_other_ids_than_its_parent() -> None:
    ids.new_request_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        ids.reseed()
        os.write(writing, "".join(ids.new_request_id(1) for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 4096).decode()
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 20 * 36
    assert not any(ids.new_request_id(1) in theirs for _ in range(300))
