"""Keeps a host's copy of the snapshot in step with Redis, from a proxy process: told by a message, and looking itself
twice a second, because messages can be lost.

Requests read the copy (stores.lmdb.snapshot) and know nothing of this: while Redis is gone they are served with the
last copy, and `problem` says since when. Every proxy process of a host does it; who is first does it for all.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import hiredis

from watchllm.stores.lmdb.snapshot_copy import Position, SnapshotCopy
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.link import Unreachable
from watchllm.stores.redis.reading import Reading, base_for
from watchllm.stores.redis.snapshot_layout import LOOK, PAGE, READ, STATE, State, keys_of, page_of, state_of

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_LOOK_SECONDS = 0.5
_ANSWER_SECONDS = 0.4
# Everything is read at the first start of a host, or after a long absence: nobody waits for one such page.
_PAGE_SECONDS = 5.0
_LATE_SECONDS = 1.0


class SnapshotFollower:
    """Open it on a running loop. Raises StoreBroken where `folder`, the host's snapshot, cannot be opened."""

    def __init__(self, client: Client, folder: StrPath, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._copy = SnapshotCopy(folder)
        self._loop = loop
        self._news = asyncio.Event()
        self._problem: str | None = "it was not reached yet"
        self._in_step_at = time.time()
        self._applying: asyncio.Future[bool] | None = None
        self._task = loop.create_task(self._follow())

    @property
    def problem(self) -> str | None:
        """Why the copy may be behind, and since when; None = it is in step."""
        if self._problem is None or time.time() - self._in_step_at < _LATE_SECONDS:
            return None
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._in_step_at))
        return f"the snapshot in Redis cannot be followed ({self._problem}): the last copy serves since {since}"

    def look(self) -> None:
        """Something was published: find out at once."""
        self._news.set()

    async def close(self) -> None:
        """At once, but for what is being written to the disk."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._applying is not None:
            await asyncio.wait([self._applying])  # A thread is not cancelled, and what it writes to may not be closed.
        self._copy.close()

    async def _follow(self) -> None:
        while True:
            self._news.clear()
            try:
                self._problem = await self._catch_up()
            except (Unreachable, hiredis.ReplyError) as error:
                self._problem = str(error)
            except Exception as error:  # noqa: BLE001  (a full disk, a bug: it is told, and the next round must come)
                self._problem = f"{type(error).__name__}: {error}"
            if self._problem is None:
                self._in_step_at = time.time()
            try:
                # Not `asyncio.wait_for`: before Python 3.12 it forgets that it was cancelled when the news come then.
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass  # Nobody said anything; look all the same.

    async def _catch_up(self) -> str | None:
        """Bring the copy up to date; why it could not be, or None."""
        state = state_of(await self._client.call_script(LOOK, (STATE,), seconds=_ANSWER_SECONDS))
        if state is None:
            return "it holds none; a console or `watchllm db upgrade` publishes it"
        if state.is_doubtful:
            return "it has one of before it was started; a console or `watchllm db upgrade` publishes it anew"
        position = self._copy.position()
        if position == (state.epoch, state.version):
            return None
        base = base_for(position, state)
        reading = await self._read(state, base)
        if reading is None:
            return "it is being replaced, or a part of it is lost; a console repairs that"
        # A commit waits for the disk: not on the loop.
        target = Position(state.epoch, reading.version)
        self._applying = self._loop.run_in_executor(None, self._copy.apply, base, target, reading.changes)
        await asyncio.shield(self._applying)
        return None

    async def _read(self, state: State, base: Position | None) -> Reading | None:
        reading = Reading(base)
        keys = keys_of(state.epoch)
        while not reading.is_whole:
            arguments = (state.epoch, reading.after, PAGE)
            reply = await self._client.call_script(READ, keys, arguments, seconds=_PAGE_SECONDS)
            if not reading.take(page_of(reply, reading.after)):
                return None
        return reading
