"""Project keys: `lgw_proj_` or `lgw_test_`, 34 random characters of base 62 and a 6-character checksum.

The checksum (CRC-32 of all before it, in base 62) lets a mistyped key be refused without a look-up. Only the SHA-256
digest and a display prefix are ever stored.
"""

import hashlib
import zlib

LIVE_PREFIX = "lgw_proj_"
TEST_PREFIX = "lgw_test_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ALPHABET_SET = frozenset(_ALPHABET)
_RANDOM_LENGTH = 34
_CHECKSUM_LENGTH = 6
_PREFIX_LENGTH = len(LIVE_PREFIX)
_KEY_LENGTH = _PREFIX_LENGTH + _RANDOM_LENGTH + _CHECKSUM_LENGTH
_DISPLAY_LENGTH = _PREFIX_LENGTH + 6


def generate(*, test: bool = False) -> str:
    """A new key, to be shown once."""
    return generate_under(TEST_PREFIX if test else LIVE_PREFIX)


def is_well_formed(key: str) -> bool:
    """Whether prefix, alphabet, length and checksum are right; says nothing of whether the key exists."""
    return (
        len(key) == _KEY_LENGTH
        and key.startswith((LIVE_PREFIX, TEST_PREFIX))
        and _ALPHABET_SET.issuperset(key[_PREFIX_LENGTH:])
        and _checksum(key[:-_CHECKSUM_LENGTH]) == key[-_CHECKSUM_LENGTH:]
    )


def generate_under(prefix: str) -> str:
    """A new secret of the same form behind another prefix, to be shown once."""
    import secrets  # proxies check keys, and never make one

    body = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return body + _checksum(body)


def is_well_formed_under(prefix: str, text: str) -> bool:
    """Whether `text` is of that form; says nothing of whether it exists."""
    return (
        len(text) == len(prefix) + _RANDOM_LENGTH + _CHECKSUM_LENGTH
        and text.startswith(prefix)
        and _ALPHABET_SET.issuperset(text[len(prefix) :])
        and _checksum(text[:-_CHECKSUM_LENGTH]) == text[-_CHECKSUM_LENGTH:]
    )


def is_test(key: str) -> bool:
    """Whether the key is of the kind that reaches only the simulated provider."""
    return key.startswith(TEST_PREFIX)


def digest(key: str) -> bytes:
    """The 32 bytes under which a key is stored and looked up (SHA-256; the key itself has 202 bits of entropy)."""
    return hashlib.sha256(key.encode()).digest()


def display_prefix(key: str) -> str:
    """What may be shown of a key after its creation."""
    return key[:_DISPLAY_LENGTH] + "…"


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, 62)
        digits = _ALPHABET[digit] + digits
    return digits
