"""Secrets at rest: AES-256-GCM under keys derived from one master secret (`WATCHLLM_SECRET_KEY`).

The master is any text of at least 32 characters (hex, base64 or a long phrase; it is not stretched, so it must be
random). BLAKE2b with a purpose as its message derives an independent 256-bit key for every use (RFC 7693, keyed mode).
A sealed value is a 12-byte random nonce, the ciphertext and a 16-byte tag; the id of its record is authenticated, so
that a value copied to another record does not open. `cryptography` is imported at the first seal or open only: it costs
tens of milliseconds, and a proxy that meets no project-owned provider key never pays them.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

_NONCE_BYTES = 12
MINIMUM_LENGTH = 32


class SealError(Exception):
    """Base of what can go wrong with secrets at rest."""


class WrongSecret(SealError):
    """The master secret is not the one that this data was sealed under."""


class SealBroken(SealError):
    """A sealed value does not open: sealed under another secret, damaged, or moved from another record."""


class Sealer:
    """Seals and opens under one master secret, and derives from it what all processes share.

    Raises ValueError for a master of less than 32 characters.
    """

    def __init__(self, master: str) -> None:
        text = master.strip()
        if len(text) < MINIMUM_LENGTH:
            raise ValueError(f"the master secret needs at least {MINIMUM_LENGTH} characters")
        self._master = hashlib.blake2b(text.encode(), digest_size=32, person=b"watchllm-master1").digest()
        self._cipher: Any = None

    def seal(self, plain: bytes, record_id: str) -> bytes:
        """Encrypt `plain` for the record `record_id`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + bytes(self._aead().encrypt(nonce, plain, record_id.encode()))

    def open(self, sealed: bytes, record_id: str) -> bytes:
        """Decrypt what `seal` made for the same record. Raises SealBroken."""
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._aead().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], record_id.encode()))
        except (InvalidTag, ValueError):
            raise _broken(record_id) from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes for `purpose` that say nothing of the master or of another purpose's bytes."""
        return hashlib.blake2b(purpose.encode(), key=self._master, digest_size=32, person=b"watchllm-derive1").digest()

    @property
    def canary(self) -> bytes:
        """A fingerprint of the master, stored beside sealed data so that a wrong secret is found at start."""
        return self.derive("canary")

    def __repr__(self) -> str:
        return "Sealer(***)"

    def _aead(self) -> Any:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(self.derive("seal"))
        return self._cipher


class Keyring:
    """The master secrets that a process knows: the current one, and others that data may still, or already, be sealed
    under while the secret is rotated. `load` reads them, the current one first; it is asked again whenever something
    does not open under what it said before, so that a process goes on while the secret is rotated under it.

    Raises ValueError for a master of less than 32 characters, and what `load` raises.
    """

    def __init__(self, load: Callable[[], Sequence[str]]) -> None:
        self._load = load
        self._masters: tuple[str, ...] = ()
        self._sealers: tuple[Sealer, ...] = ()
        self._learnt: tuple[Sealer, ...] = ()
        self._reload()

    @property
    def current(self) -> Sealer:
        return self._sealers[0]

    def learn(self, sealer: Sealer) -> None:
        """Know one more secret from now on, which `load` may not name."""
        self._learnt = (*self._learnt, sealer)

    def open(self, sealed: bytes, record_id: str) -> bytes:
        """Decrypt what any of the secrets sealed for this record. Raises SealBroken."""
        opened = self._try(sealed, record_id)
        if opened is None and self._reload():
            opened = self._try(sealed, record_id)
        if opened is None:
            raise _broken(record_id)
        return opened

    def in_force(self, canary: bytes | None, where: str) -> Sealer:
        """The secret that left `canary`, the current one where there is none; `where` names what is sealed under it.

        Raises WrongSecret when it is none that this process knows.
        """
        found = self._find(canary)
        if found is None and self._reload():
            found = self._find(canary)
        if found is None:
            raise WrongSecret(
                f"WATCHLLM_SECRET_KEY (or secret.key in WATCHLLM_HOME) is not the secret that {where} was "
                "sealed under. Set the one that was used before, as WATCHLLM_SECRET_KEY or, while the secret is "
                "rotated, as WATCHLLM_SECRET_KEY_PREVIOUS; without it, the stored provider keys cannot be read."
            )
        return found

    def derive(self, purpose: str) -> bytes:
        """`Sealer.derive` of the current secret."""
        return self.current.derive(purpose)

    def __repr__(self) -> str:
        return "Keyring(***)"

    def _find(self, canary: bytes | None) -> Sealer | None:
        # No constant-time comparison: of our own files, there is nobody to time it.
        return next(
            (sealer for sealer in (*self._sealers, *self._learnt) if canary is None or sealer.canary == canary), None
        )

    def _try(self, sealed: bytes, record_id: str) -> bytes | None:
        for sealer in (*self._sealers, *self._learnt):
            try:
                return sealer.open(sealed, record_id)
            except SealBroken:
                continue
        return None

    def _reload(self) -> bool:
        """Whether there are other secrets now."""
        masters = tuple(self._load())
        if masters == self._masters:
            return False
        self._sealers = tuple(Sealer(master) for master in masters)
        self._masters = masters
        return True


def _broken(record_id: str) -> SealBroken:
    return SealBroken(f"the secret of {record_id} does not open under this WATCHLLM_SECRET_KEY")
