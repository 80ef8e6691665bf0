"""Management tokens: `lgw_admin_` before what keys have behind their prefix, so that neither is taken for the other.

What keys are for, asking models, a token may not do; what tokens are for, managing, a key may not.
"""

from watchllm.domain import keys

PREFIX = "lgw_admin_"
_DISPLAY_LENGTH = len(PREFIX) + 6


def generate() -> str:
    """A new token, to be shown once."""
    return keys.generate_under(PREFIX)


def is_well_formed(token: str) -> bool:
    """Whether prefix, alphabet, length and checksum are right; says nothing of whether the token exists."""
    return keys.is_well_formed_under(PREFIX, token)


def digest(token: str) -> bytes:
    """The 32 bytes under which a token is stored and looked up (SHA-256)."""
    return keys.digest(token)


def display_prefix(token: str) -> str:
    """What may be shown of a token after its creation."""
    return token[:_DISPLAY_LENGTH] + "…"
