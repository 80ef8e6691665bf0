"""What the recorder tells the proxies of a host: who has spent what, as of which places in the journals.

A proxy that must know it adds what the journals hold from there on. So nothing is lost between the two, whatever was
killed in between.
"""

from typing import NamedTuple, Protocol

from watchllm.domain.money import Nanos

Periods = dict[str, tuple[int, Nanos]]
"""Billable requests and nano-dollars by period: `total`, a month as `2026-11`, a day of UTC as `2026-11-26`."""


class NotTold(Exception):
    """The proxies could not be told who has spent what, or not all of it; the message is for the operator."""


class Place(NamedTuple):
    """A place in a series of journal segments; `finished`: nothing comes after it."""

    sequence: int
    offset: int
    finished: bool = False


class LedgerReader(Protocol):
    def read(self, subjects: list[str]) -> tuple[dict[str, Periods], dict[str, Place]] | None:
        """What each of `subjects` has spent, and the places up to which that counts the journals' series, at one
        moment; None = nothing was ever told. Safe in a thread."""
        ...
