"""What judges said of pairs: an entry's question and another one. Kept with the vector of the first, forgotten with it.

A pair that was found equal is served from then on without asking again, one that was not is not asked about again.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from watchllm.cache.semantic.vectors import QUESTION_LENGTH

if TYPE_CHECKING:
    from watchllm.cache.semantic.vectors import VectorStore

_MOST_RECENT: Final = 4_096


class Pair(NamedTuple):
    """The entry at `key` that was created then, in a partition of like questions, and the digest of a question."""

    partition: bytes
    key: bytes
    created_ms: int
    question: bytes


class Verdicts:
    """Those of the store, and this process's latest, which may not be written yet.

    The latest need not be forgotten with their entry: what took its place was created at another time.
    """

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._recent: OrderedDict[Pair, bool] = OrderedDict()

    def get(self, pair: Pair) -> bool | None:
        """True = the entry's answer will do, False = it will not, None = nobody said."""
        known = self._recent.get(pair)
        return self._store.verdict(*pair) if known is None else known

    def put(self, pair: Pair, *, equal: bool) -> None:
        self._recent[pair] = equal
        if len(self._recent) > _MOST_RECENT:
            self._recent.popitem(last=False)
        self._store.put_verdict(*pair, equal=equal)


def digest_of(question: str, model: str) -> bytes:
    """What tells a question, to the letter, from others in its partition that the judge `model` said something of."""
    said_by = blake2b(model.encode(), digest_size=16, person=b"judge").digest()
    return blake2b(question.encode(errors="surrogatepass"), digest_size=QUESTION_LENGTH, key=said_by).digest()
