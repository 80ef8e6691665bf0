"""Redis for the hot path: one server, or a cluster that is found out about by its redirections.

Only what hosted Redis (Upstash among them) offers is used: plain commands, EVALSHA with EVAL behind it, PUBLISH. Keys
that belong together share a hash tag, so that a command goes to one node; `key` says which.
"""

from __future__ import annotations

import asyncio
import hashlib
from binascii import crc_hqx
from typing import TYPE_CHECKING, Any

import hiredis

from watchllm.stores.redis.address import Address
from watchllm.stores.redis.link import Argument, Unreachable, encode
from watchllm.stores.redis.node import TIMEOUT_SECONDS, Done, Node

if TYPE_CHECKING:
    import ssl

_SLOTS = 16384
_MOST_REDIRECTIONS = 3
_ASKING = encode("ASKING")


class Script:
    """A Lua script, known to the server by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Client:
    """Opened on a running loop. `submit` and `run` return at once; `call` and `call_script` are for who may wait.

    A command waits `timeout` seconds at most, unless it is given other `seconds`. Nothing of it raises or hangs where
    Redis is gone: a command is either not taken, or answered with Unreachable.
    """

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop, timeout: float = TIMEOUT_SECONDS) -> None:
        self.address = address
        self._loop = loop
        self._timeout = timeout
        self._context: ssl.SSLContext | None = address.tls_context()
        self._nodes: dict[tuple[str, int], Node] = {}
        self._slots: list[Node] | None = None
        self._refreshing = False
        self._closed = False
        for host, port in address.seeds:
            node = self._node(host, port)
            if address.cluster:
                node.on_ready = self._refresh
        self._seeds = list(self._nodes.values())

    @property
    def problem(self) -> str | None:
        """Why Redis cannot be reached, or None; of a cluster, of the first node that cannot."""
        if self._slots is None:
            if any(node.ready for node in self._seeds):
                return "the cluster has not told yet who serves what" if self.address.cluster else None
            return self._seeds[0].problem
        down = next((node for node in self._serving() if not node.ready), None)
        return None if down is None else f"{down.host}:{down.port}: {down.problem}"

    @property
    def down_since(self) -> float | None:
        """Epoch seconds since when it cannot be reached; None = it can."""
        if self.problem is None:
            return None
        nodes = self._seeds if self._slots is None else self._serving()
        return min((node.down_since for node in nodes if node.down_since is not None), default=None)

    def counters(self) -> dict[str, int]:
        """Since the start: commands given up, connections lost or not made, commands that were not taken."""
        nodes = list(self._nodes.values())
        return {
            "timeouts": sum(node.timeouts for node in nodes),
            "failures": sum(node.failures for node in nodes),
            "refused": sum(node.refused for node in nodes),
        }

    def submit(self, key: bytes, command: bytes, done: Done, seconds: float | None = None) -> bool:
        """Send an encoded command to where `key` lives; False = it cannot be taken, and `done` is never called."""
        node = self._at(key)
        return node.submit(command, _Redirected(self, command, done, seconds).on_reply, seconds)

    def run(
        self,
        script: Script,
        keys: tuple[bytes, ...],
        arguments: tuple[Argument, ...],
        done: Done,
        seconds: float | None = None,
    ) -> bool:
        """Run a script; as `submit`. A server is sent its text first, in the order of all commands."""
        rest = (len(keys), *keys, *arguments)
        known = self._at(keys[0]).scripts
        if script.digest not in known:
            known.add(script.digest)
            return self.submit(keys[0], encode("EVAL", script.text, *rest), done, seconds)

        def on_reply(reply: Any) -> None:
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                if not self.submit(keys[0], encode("EVAL", script.text, *rest), done, seconds):
                    done(Unreachable("it was lost meanwhile"))
            else:
                done(reply)

        return self.submit(keys[0], encode("EVALSHA", script.digest, *rest), on_reply, seconds)

    async def call(self, key: bytes, *arguments: Argument, seconds: float | None = None) -> Any:
        """Send and wait for the reply. Raises Unreachable, and `hiredis.ReplyError` for what Redis refuses."""
        waiting = _Waiting(self._loop)
        return await waiting.reply(self.submit(key, encode(*arguments), waiting.done, seconds))

    async def call_script(
        self,
        script: Script,
        keys: tuple[bytes, ...],
        arguments: tuple[Argument, ...] = (),
        *,
        seconds: float | None = None,
    ) -> Any:
        """Run a script and wait. Raises as `call`."""
        waiting = _Waiting(self._loop)
        return await waiting.reply(self.run(script, keys, arguments, waiting.done, seconds))

    def close(self) -> None:
        self._closed = True
        for node in self._nodes.values():
            node.close()

    def _node(self, host: str, port: int) -> Node:
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes[host, port] = Node(host, port, self.address, self._context, self._loop, self._timeout)
            # With every try to reach it in vain: another node may have taken over what it served.
            node.on_down = self._ask_for_its_successor
            node.open()
        return node

    def _at(self, key: bytes) -> Node:
        if self._slots is not None:
            return self._slots[slot_of(key)]
        return next((node for node in self._seeds if node.ready), self._seeds[0])

    def _serving(self) -> list[Node]:
        return list(dict.fromkeys(self._slots or ()))

    def _redirect(self, error: str, redirected: _Redirected) -> bool:
        """Follow `MOVED slot host:port` or `ASK …`; False = it cannot be."""
        kind, slot, place = error.split(" ")[:3]
        host, _, port = place.rpartition(":")
        node = self._node(host or self._seeds[0].host, int(port))
        if kind == "ASK":
            return node.submit(_ASKING, _forget, redirected.seconds) and node.submit(
                redirected.command, redirected.on_reply, redirected.seconds
            )
        if self._slots is not None:
            self._slots[int(slot)] = node
        self._refresh()
        return node.submit(redirected.command, redirected.on_reply, redirected.seconds)

    def _ask_for_its_successor(self) -> None:
        if self._slots is not None:
            self._refresh()

    def _refresh(self) -> None:
        """Ask any node who serves what."""
        ready = next((node for node in self._nodes.values() if node.ready), None)
        if self._refreshing or self._closed or ready is None:
            return
        self._refreshing = ready.submit(encode("CLUSTER", "SLOTS"), self._know, 1.0)

    def _know(self, reply: Any) -> None:
        self._refreshing = False
        if not isinstance(reply, list) or not reply:
            return
        slots: list[Node | None] = [None] * _SLOTS
        for first, last, (host, port, *_), *_replicas in reply:
            node = self._node(host.decode() or self._seeds[0].host, port)
            slots[first : last + 1] = [node] * (last + 1 - first)
        # What nobody serves just now is answered by anybody with an error.
        self._slots = [node or self._seeds[0] for node in slots]
        serving = set(self._serving()) | set(self._seeds)
        for place, node in list(self._nodes.items()):
            if node not in serving:
                del self._nodes[place]
                node.close()


class _Redirected:
    """A command that follows where a cluster sends it."""

    __slots__ = ("_client", "_done", "_left", "command", "seconds")

    def __init__(self, client: Client, command: bytes, done: Done, seconds: float | None) -> None:
        self._client, self.command, self._done, self.seconds = client, command, done, seconds
        self._left = _MOST_REDIRECTIONS

    def on_reply(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) and self._left:
            text = str(reply)
            if text.startswith(("MOVED ", "ASK ")):
                self._left -= 1
                if not self._client._redirect(text, self):
                    self._done(Unreachable("the node that has the key is not connected yet"))
                return
        self._done(reply)


class _Waiting:
    """A reply as an awaitable."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[Any] = loop.create_future()

    def done(self, reply: Any) -> None:
        if not self._future.done():
            self._future.set_result(reply)

    async def reply(self, taken: bool) -> Any:
        if not taken:
            raise Unreachable("it cannot be reached just now")
        reply = await self._future
        if isinstance(reply, (hiredis.ReplyError, Unreachable)):
            raise reply
        return reply


def slot_of(key: bytes) -> int:
    """The cluster's slot of a key: of what is between its first braces, if there is anything."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % _SLOTS


def _forget(_reply: Any) -> None:
    """The reply to ASKING says nothing."""
