"""The words that are none: how punctuation, and what must be the same to the letter, stand among a prompt's words."""

from typing import Final

EXACT_MARK: Final = "\x00"
"""Followed by a number: which of the texts that were set aside."""
BREAK: Final = "."
COMMA: Final = ","
COLON: Final = ":"
