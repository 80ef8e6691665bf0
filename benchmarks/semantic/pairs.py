"""Labelled pairs of prompts, and a similarity for them that needs no embedder."""

import json
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_BUCKETS = 4096


class Pair(NamedTuple):
    """`label` 1 = serving the answer to `a` for `b` is right."""

    id: str
    capability: str
    a: str
    b: str
    label: int


def read_pairs(paths: Iterable[Path]) -> Iterator[Pair]:
    """The pairs of JSONL files of {"id", "capability", "a", "b", "label"}."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                row = json.loads(line)
                yield Pair(str(row["id"]), row.get("capability", "all"), row["a"], row["b"], int(row["label"]))


def bag_similarity(a: str, b: str) -> float:
    """The cosine of hashed bags of words: a stand-in that is the same on every machine."""
    one, other = _bag(a), _bag(b)
    if not one or not other:
        return 0.0
    dot = sum(count * other.get(bucket, 0) for bucket, count in one.items())
    return dot / math.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))


def _bag(text: str) -> dict[int, int]:
    counts: dict[int, int] = {}
    for word in text.lower().split():
        bucket = zlib.crc32(word.strip(".,;:!?\"'()").encode()) % _BUCKETS
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts
