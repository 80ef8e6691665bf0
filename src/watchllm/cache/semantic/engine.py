"""Look-ups by meaning, of one process: embedder, vectors and decision put together.

What a proxy asks for each request is `read` once and `candidates` once; who serves still looks the entry up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec
import numpy

from watchllm.cache.entry import Entry, InvalidationFilter
from watchllm.cache.semantic.awaited import Awaited, NotEmbedded
from watchllm.cache.semantic.cross_encoding import CrossEncoding
from watchllm.cache.semantic.decide import Candidate, Decision, Policy, decide
from watchllm.cache.semantic.embedder import Embedder
from watchllm.cache.semantic.features import Features, features
from watchllm.cache.semantic.judge import can_be_shown
from watchllm.cache.semantic.lexicon import LANGUAGES, lexicon
from watchllm.cache.semantic.memory import Memory
from watchllm.cache.semantic.partition import Found, Prompt
from watchllm.cache.semantic.shares import Shares
from watchllm.cache.semantic.text import MAX_CHARACTERS
from watchllm.cache.semantic.vectors import PROJECT_LENGTH, StoredVector, VectorStore, partition_of
from watchllm.cache.semantic.verdicts import Pair, Verdicts
from watchllm.domain.money import Nanos

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

MOST_COMPARED: Final = 5
"""Stored prompts that are compared with one question: similarity finds them, and does not know the best of them."""
MOST_READ: Final = 64
"""Long prompts that are read or wait for it, which projects share."""
READER_BUSY: Final = "reader_busy"
_QUICK: Final = 1_024
"""Characters that are read in well under 2 ms, whatever words they are."""
_WRITTEN_MS: Final = 1_000
_DAY_MS: Final = 86_400_000
_decode = msgspec.msgpack.Decoder(Features).decode
_encode = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T")


class Question(NamedTuple):
    """A prompt as it is looked for, and kept."""

    vector: Vectors
    features: Features
    text: str


class Judged(NamedTuple):
    """A stored prompt and what was decided about it. `key` and `created_ms` are those of its entry."""

    key: bytes
    created_ms: int
    decision: Decision


class Engine:
    """For one thread, the event loop's, but for its making, which takes a quarter of a second. `cross_encoding` is who
    may be asked in doubt, None = nobody in this process."""

    def __init__(
        self,
        embedder: Embedder | Awaited,
        store: VectorStore,
        *,
        max_entries: int,
        cross_encoding: CrossEncoding | None = None,
    ) -> None:
        self._embedder = embedder
        self.cross_encoding = cross_encoding
        self._reading: set[asyncio.Task[None]] = set()
        self._version = f"{embedder.version}/{_fingerprint()}"
        self._store = store
        self.verdicts = Verdicts(store)
        self._executor = ThreadPoolExecutor(1, "semantic")
        self.reader = ThreadPoolExecutor(1, "semantic-read")
        """For long prompts, which do not wait for graphs that are built."""
        self._reads = Shares(MOST_READ)
        self.memory = Memory(store, embedder.dimensions, max_entries=max_entries, executor=self._executor)
        # Words and weights are read now, not with the first question.
        for language in LANGUAGES:
            lexicon(language)
        first = features("What is it?")
        decide(first, Candidate(1.0, first))

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep up with what other processes store, and load what may be asked in doubt."""
        self.memory.follow(loop)
        if self.cross_encoding is not None:
            self.cross_encoding.start()

    def health(self) -> str | None:
        """What does not work as it should, or None."""
        embedding = self._embedder.problem if isinstance(self._embedder, Awaited) else None
        reading = None if self.cross_encoding is None else self.cross_encoding.problem
        return self._store.health() or self.memory.problem or embedding or reading

    @property
    def is_warming(self) -> bool:
        """Whether something is still being loaded that look-ups do without until then."""
        return self.cross_encoding is not None and self.cross_encoding.is_loading

    @property
    def awaited(self) -> Awaited | None:
        """The embedder, where it is one whose vectors are waited for."""
        return self._embedder if isinstance(self._embedder, Awaited) else None

    def is_quick(self, prompt: str) -> bool:
        """Whether `read` will do for this prompt; `read_slowly` or `read_later` if not."""
        return not isinstance(self._embedder, Awaited) and len(prompt) <= _QUICK

    def partition(self, project: bytes, context: bytes) -> bytes:
        """Where prompts of a project that were asked in the same context are."""
        return partition_of(project, context, self._embedder.name, self._version)

    def read(self, prompt: str) -> Question:
        """What is compared of a prompt that is quick to read. May be called in any thread."""
        assert not isinstance(self._embedder, Awaited)
        return Question(self._embedder.embed((prompt,))[0], features(prompt), prompt)

    async def read_slowly(self, prompt: str, partition: bytes, *, patient: bool = False) -> Question:
        """What is compared of any prompt in `partition`; `patient`: nobody waits for it. Raises NotEmbedded, also where
        too many long prompts are being read."""
        project = partition[:PROJECT_LENGTH]
        if not isinstance(self._embedder, Awaited):
            return await self._in_reader(project, self.read, prompt)
        vector = await self._embedder.vector(prompt, project, patient=patient)
        if len(prompt) <= _QUICK:
            return Question(vector, features(prompt), prompt)
        return Question(vector, await self._in_reader(project, features, prompt), prompt)

    def _in_reader(self, project: bytes, read: Callable[[str], _T], prompt: str) -> asyncio.Future[_T]:
        if not self._reads.take(project):
            raise NotEmbedded(READER_BUSY, "too many long prompts are being read")
        reading = asyncio.get_running_loop().run_in_executor(self.reader, read, prompt)
        # Not when who waits has gone: what he asked for is still in the queue.
        reading.add_done_callback(lambda _: self._reads.give_back(project))
        return reading

    def read_later(self, prompt: str, partition: bytes, then: Callable[[Question], None]) -> None:
        """Read a prompt for which nobody waits, and call `then` with it; never where it cannot be embedded, which
        `health` tells, or too many are being read."""
        task = asyncio.get_running_loop().create_task(self._read_then(prompt, partition, then))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read_then(self, prompt: str, partition: bytes, then: Callable[[Question], None]) -> None:
        try:
            question = await self.read_slowly(prompt, partition, patient=True)
        except NotEmbedded:
            return
        then(question)

    def candidates(self, partition: bytes, question: Question, policy: Policy, now_ms: int) -> Iterator[Judged] | None:
        """The nearest prompts in a partition with what is decided about each, one after the other; None while the
        partition is being read."""
        found = self.memory.nearest(partition, question.vector, MOST_COMPARED)
        if found is None:
            return None
        fresh = (one for one in found if one.prompt.is_fresh(now_ms))
        return filter(None, (_judge(one, question.features, policy, now_ms) for one in fresh))

    def keep(self, partition: bytes, key: bytes, question: Question, entry: Entry, *, with_text: bool = False) -> bool:
        """Let the entry at `key` be found by its prompt; whether the store took it. Expires as the entry does.

        `with_text`: a judge or a cross-encoder may be asked about it, and has to see it.
        """
        encoded = _encode(question.features)
        self.memory.put(partition, key, question.vector, Prompt(entry.created_ms, entry.expires_ms, encoded))
        return self._store.put(
            partition,
            key,
            StoredVector(
                entry.created_ms,
                entry.expires_ms,
                entry.model,
                entry.kind,
                entry.key_id,
                question.vector.astype(numpy.float16).tobytes(),
                encoded,
                question.text if with_text and can_be_shown(question.text) else "",
            ),
        )

    def text_of(self, pair: Pair) -> str:
        """The stored prompt, empty where it was kept without its text or is not written yet."""
        stored = self._store.get(pair.partition, pair.key)
        return stored.text if stored is not None and stored.created_ms == pair.created_ms else ""

    def holds(self, pair: Pair, now_ms: int) -> bool:
        """Whether the store still has that prompt: a purge by another process is in force before it is followed. One
        that was kept just now may not have been written yet."""
        return now_ms - pair.created_ms < _WRITTEN_MS or self._store.get(pair.partition, pair.key) is not None

    def spent_on_judges(self, project: bytes, day: int) -> Nanos:
        """What judges cost a project on a day of UTC since 1970, in earlier lives of this process, too."""
        return self._store.spent(project, day)

    def spend_on_judge(self, project: bytes, day: int, cost: Nanos) -> None:
        """Have what a judge did cost outlive this process."""
        self._store.spend(project, day, cost)

    def forget(self, partition: bytes, key: bytes) -> None:
        """Find that entry no longer: it is gone."""
        self.memory.remove(partition, key)
        self._store.remove(partition, key)

    async def purge(self, project: bytes, what: InvalidationFilter) -> int:
        """Forget the prompts of a project's entries that match; how many. Raises Unavailable."""
        return await self._store.purge(project, what)

    def close(self) -> None:
        """Write what is waiting and end the threads."""
        for task in self._reading:
            task.cancel()
        if isinstance(self._embedder, Awaited):
            self._embedder.close()
        if self.cross_encoding is not None:
            self.cross_encoding.close()
        self.memory.close()
        for executor in (self._executor, self.reader):
            executor.shutdown(wait=True, cancel_futures=True)
        self._store.close()


def is_too_long(prompt: str) -> bool:
    """Whether no prompt of that length is compared, told before it is read."""
    return len(prompt) > MAX_CHARACTERS


def _judge(found: Found, question: Features, policy: Policy, now_ms: int) -> Judged | None:
    """None where what was kept cannot be read: the file is damaged."""
    similarity, key, prompt = found
    try:
        candidate = Candidate(similarity, _decode(prompt.features))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    same_day = prompt.created_ms // _DAY_MS == now_ms // _DAY_MS
    decision = decide(question, candidate, policy, same_day=same_day)
    return Judged(key, prompt.created_ms, decision)


def _fingerprint() -> str:
    """Stands for what makes features of a prompt: those that an earlier version made are not compared with today's."""
    digest = blake2b(digest_size=6)
    package = files(__package__)
    for file in (*_in_order(package, ".py"), *_in_order(package / "words", "")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _in_order(folder: Traversable, ending: str) -> list[Traversable]:
    found = (file for file in folder.iterdir() if file.is_file() and file.name.endswith(ending))
    return sorted(found, key=lambda file: file.name)
