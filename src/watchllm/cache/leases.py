"""The port of what makes one call of the same question over several processes."""

from collections.abc import Callable
from typing import Protocol


class Leases(Protocol):
    """Who of all processes makes the call for a key. Best effort: where it cannot be found out, everybody may.

    `place` is a project's partition and a key of it (`cache.entry.Answers`), one after the other.
    """

    def claim(self, place: bytes, told: Callable[[bool], None]) -> bool:
        """True = the caller makes the call, now, and `told` is not called. Else `told` is called later, once: with True
        where the caller is to make the call, with False when another's has ended, or somebody else here makes it: then
        look again, at the calls under way and at what is stored."""
        ...

    def release(self, place: bytes) -> None:
        """The call has ended, and what it stored was put before; without a claim, nothing."""
        ...
