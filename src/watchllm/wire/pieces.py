"""The pieces of a body that is kept: small ones, which take thirty times their bytes as objects, are joined in time."""

from __future__ import annotations

from typing import Final

FOLD_EVERY: Final = 1024
"""Whoever keeps pieces calls `fold` whenever their number is a multiple of this."""

_SMALL: Final = 64 * 1024


def fold(pieces: list[bytes]) -> None:
    """Join the small ones at the end."""
    at = len(pieces)
    while at and len(pieces[at - 1]) < _SMALL:
        at -= 1
    pieces[at:] = [b"".join(pieces[at:])]
