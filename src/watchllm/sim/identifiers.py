"""Ids of tool calls: random, as real ones are, so that those of two simulators differ."""

import random
import string

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 24
_random = random.Random()


def call_id(prefix: str) -> str:
    """`prefix` and 24 letters and digits."""
    return prefix + "".join(_random.choices(_ALPHABET, k=_LENGTH))
