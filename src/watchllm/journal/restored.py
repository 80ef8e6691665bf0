"""Whether the database still is where a recorder believes it to be.

A database that was restored from a backup while recorders run knows less than they remember. It is right: its positions
were written with its rows. Whoever went on from memory would leave out what lies between, and remove the segments that
have it.
"""

from collections.abc import Mapping

from watchllm.journal.recorder import Position, StoreUnavailable


class PositionsChanged(StoreUnavailable):
    """The database says of a journal that it was recorded up to somewhere else than this recorder has left it."""


def check_positions(believed: Mapping[str, Position | None], found: Mapping[str, Position]) -> None:
    """Raise PositionsChanged unless the database's positions (`found`) are those that are believed in."""
    for series, position in believed.items():
        there = found.get(series)
        if there == position or (there is None and position is not None and position.finished):
            continue  # Ended, and forgotten there after a while.
        raise PositionsChanged(
            f"the database has journal {series} {_up_to(there)}, and not {_up_to(position)}: it was restored from a "
            "backup, or another recorder works on a copy of this home; it is read again from there, as far as its "
            "segments are kept"
        )


def _up_to(position: Position | None) -> str:
    if position is None:
        return "not at all"
    end = ", its end" if position.finished else ""
    return f"up to {position.offset} of segment {position.sequence}{end}"
