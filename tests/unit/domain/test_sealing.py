"""Secrets at rest open only under their own master secret and for their own record."""

import pytest

from watchllm.domain.sealing import Keyring, SealBroken, Sealer, WrongSecret

MASTER = "0123456789abcdef" * 2


def test_what_was_sealed_opens_again() -> None:
    sealed = Sealer(MASTER).seal(b"sk-secret", "pvk_1")
    assert b"sk-secret" not in sealed
    assert Sealer(MASTER + "\n").open(sealed, "pvk_1") == b"sk-secret"


def test_two_seals_of_one_value_differ() -> None:
    sealer = Sealer(MASTER)
    assert sealer.seal(b"x", "pvk_1") != sealer.seal(b"x", "pvk_1")


@pytest.mark.parametrize("position", [0, 13, -1])
def test_a_changed_byte_is_refused(position: int) -> None:
    sealed = bytearray(Sealer(MASTER).seal(b"sk-secret", "pvk_1"))
    sealed[position] ^= 1
    with pytest.raises(SealBroken, match="pvk_1"):
        Sealer(MASTER).open(bytes(sealed), "pvk_1")


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(12)])
def test_what_is_no_sealed_value_is_refused(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        Sealer(MASTER).open(sealed, "pvk_1")


def test_a_value_moved_to_another_record_is_refused() -> None:
    with pytest.raises(SealBroken):
        Sealer(MASTER).open(Sealer(MASTER).seal(b"x", "pvk_1"), "pvk_2")


def test_a_wrong_secret_is_found_by_its_canary() -> None:
    right, wrong = Keyring(lambda: [MASTER]), Keyring(lambda: [MASTER.upper()])
    canary = right.current.canary
    assert right.in_force(canary, "the database") is right.in_force(None, "the database") is right.current
    with pytest.raises(WrongSecret, match=r"the database.*Set the one"):
        wrong.in_force(canary, "the database")
    with pytest.raises(SealBroken, match=r"pvk_1 does not open under this WATCHLLM_SECRET_KEY"):
        wrong.open(right.current.seal(b"x", "pvk_1"), "pvk_1")


def test_while_the_secret_is_rotated_what_either_sealed_opens() -> None:
    old, new = Sealer(MASTER), Sealer(MASTER.upper())
    keyring = Keyring(lambda: [MASTER.upper(), MASTER])
    assert [keyring.open(sealer.seal(b"x", "pvk_1"), "pvk_1") for sealer in (old, new)] == [b"x", b"x"]
    assert keyring.current.canary == new.canary
    assert keyring.in_force(old.canary, "the database").canary == old.canary
    with pytest.raises(SealBroken):
        keyring.open(old.seal(b"x", "pvk_2"), "pvk_1")


def test_secrets_are_read_again_when_something_does_not_open_under_those_known() -> None:
    masters, reads = [MASTER], []

    def load() -> list[str]:
        reads.append(1)
        return list(masters)

    keyring = Keyring(load)
    assert keyring.open(Sealer(MASTER).seal(b"x", "pvk_1"), "pvk_1") == b"x"
    assert len(reads) == 1
    masters[:] = [MASTER.upper()]
    new = Sealer(MASTER.upper())
    assert keyring.open(new.seal(b"y", "pvk_1"), "pvk_1") == b"y"
    assert keyring.current.canary == new.canary
    masters[:] = ["n" * 40]
    assert keyring.in_force(Sealer("n" * 40).canary, "the database") is keyring.current


def test_derived_bytes_depend_on_master_and_purpose() -> None:
    sealer = Sealer(MASTER)
    derived = {sealer.derive("a"), sealer.derive("b"), Sealer(MASTER.upper()).derive("a")}
    assert len(derived) == 3
    assert {len(value) for value in derived} == {32}


def test_a_short_master_is_refused_and_no_repr_shows_one() -> None:
    with pytest.raises(ValueError, match="32"):
        Sealer("short")
    assert MASTER not in repr(Sealer(MASTER)) + repr(Keyring(lambda: [MASTER]))
