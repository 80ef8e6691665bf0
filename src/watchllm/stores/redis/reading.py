"""What has changed in the snapshot since a host's copy was brought up to date, collected page by page into one step."""

from __future__ import annotations

from watchllm.stores.lmdb.snapshot_copy import Position
from watchllm.stores.redis.snapshot_layout import Page, State


def base_for(position: Position, state: State) -> Position | None:
    """What a copy at `position` can go on from; None = it has to read everything."""
    return position if position.epoch == state.epoch and state.floor <= position.version <= state.version else None


class Reading:
    """From `base` on: `changes` and the `version` they lead to, once it `is_whole`."""

    def __init__(self, base: Position | None) -> None:
        self._base = base
        self.after = 0 if base is None else base.version
        self.changes: dict[bytes, bytes | None] = {}
        self.version = 0
        self.is_whole = False

    def take(self, page: Page | None) -> bool:
        """Add the next page, of what changed `after`; False = what is read is over, or what was removed since the base
        is not all remembered any more: begin again."""
        if page is None or (self._base is not None and page.floor > self._base.version):
            return False
        self.changes.update(page.changes)
        self.after, self.version, self.is_whole = page.reached, page.version, page.is_last
        return True
