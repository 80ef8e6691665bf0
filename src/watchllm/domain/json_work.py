"""How much work a large JSON body may be. The decoder runs to its end while every other request waits, so what bounds
the wait is not the body's size but what is in it: a megabyte of text takes 2 ms, a megabyte of `[]` 100.
"""

import re
from collections.abc import Callable

from watchllm.domain.errors import WireRefusal

MAX_WORK = 400_000
"""A number or text in an array counts 1, a member of an object 3, an array or object 4 more.

Reading what is just below it and writing its canonical form take some 100 ms. It is above the largest embeddings
request that OpenAI takes, 300,000 tokens in all."""

MAX_LONG_DIGITS = 1 << 20
"""Digits of all integers together that are longer than a 64-bit one: turning them into numbers takes time by the
square of their length."""

_LONG_INTEGER = re.compile(rb"(?<![0-9])[0-9]{20,}")
_DIGITS = b"0123456789"
_BEGINNING = 4 * 1024 * 1024


def check_work(body: bytes) -> None:
    """Raises WireRefusal (413) for a body that holds too many values or too many digits. `body` need not be JSON."""
    if len(body) > _BEGINNING:
        _check(body[:_BEGINNING])  # what is far too much shows early, and refusing it is to cost little
    _check(body)


def _check(body: bytes) -> None:
    # What is in texts counts here too, but most bodies are below the bounds even so and need no closer look.
    dense = _work(body) > MAX_WORK
    if not dense and len(body) - len(body.translate(None, _DIGITS)) <= MAX_LONG_DIGITS:
        return
    structure = _without_texts(body)
    if dense and _work(structure) > MAX_WORK:
        raise _too_many_values()
    if sum(map(len, _LONG_INTEGER.findall(structure))) > MAX_LONG_DIGITS:
        raise _too_many_digits()


class NumberBudget:
    """Reads the numbers with a fraction or an exponent of one body, and stops where they grow out of proportion:
    `1e300` is an integer of 301 digits, written in five bytes. Short ones are free: `check_work` counted them."""

    __slots__ = ("_left", "_number")

    def __init__(self, number: Callable[[str], int | float]) -> None:
        self._number = number
        self._left = MAX_LONG_DIGITS

    def read(self, spelling: str) -> int | float:
        """What `number` makes of it. Raises WireRefusal (413), and what `number` raises."""
        value = self._number(spelling)
        if type(value) is int:
            if len(spelling) > 16 or not -_EXACT < value < _EXACT:  # the others were read by way of a double
                self._spend(max(len(spelling), value.bit_length() * 3 // 10))
        elif len(spelling) > 25:
            self._spend(len(spelling))
        return value

    def _spend(self, digits: int) -> None:
        self._left -= digits
        if self._left < 0:
            raise _too_many_digits()


_EXACT = 10**15


def _work(text: bytes) -> int:
    count = text.count
    return count(b",") + 4 * (count(b"[") + count(b"{")) + 2 * count(b":")


def _without_texts(body: bytes) -> bytes:
    """What stands outside of strings, as far as `body` is JSON; raises as `check_work` does."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') > 2 * MAX_WORK:
        raise _too_many_values()
    return b"".join(body.split(b'"')[::2])


def _too_many_values() -> WireRefusal:
    return WireRefusal(
        f"The body holds too many values: {MAX_WORK:,} numbers or texts, or a fifth as many arrays, are read at most. "
        "Send them in several requests."
    )


def _too_many_digits() -> WireRefusal:
    return WireRefusal(
        f"The body holds too many digits in long numbers: {MAX_LONG_DIGITS:,} are read at most. "
        "Send long numbers as strings."
    )
