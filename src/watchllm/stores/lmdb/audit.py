"""A recount of the exact cache: whether its indexes and counters say what its entries say.

They change in the same transactions, so a difference is a bug or a broken disk; `repair` sets the counters right.
"""

import lmdb
import msgspec

from watchllm.cache.entry import NEVER
from watchllm.stores.lmdb.cache_layout import PROJECT_LENGTH, TOTAL, TOTAL_KEY, Databases, Meta, expiry_key, recency_key
from watchllm.stores.lmdb.cache_session import KindCounts, read_counts, read_total


def audit(txn: "lmdb.Transaction[bytes]", databases: Databases) -> list[str]:
    """What is wrong, a line each; empty when all is well. Walks every entry's `meta`: seconds for a million."""
    counts, problems = _recount(txn, databases)
    total = _sum(counts)
    if read_total(txn, databases) != total:
        problems.append(f"total says {read_total(txn, databases)}, counted {total}")
    with txn.cursor(databases.projects) as cursor:
        known = set(cursor.iternext(values=False))
    for project in known | set(counts):
        stored = read_counts(txn, databases, project)
        if stored != counts.get(project, {}):
            problems.append(f"project {project.hex()} says {stored}, counted {counts.get(project, {})}")
    return problems


def repair(txn: "lmdb.Transaction[bytes]", databases: Databases) -> None:
    """Write the counters anew from the entries, in a write transaction."""
    counts, _ = _recount(txn, databases)
    txn.drop(databases.projects, delete=False)
    for project, kinds in counts.items():
        txn.put(project, msgspec.msgpack.encode(kinds), db=databases.projects)
    txn.put(TOTAL_KEY, TOTAL.pack(*_sum(counts)), db=databases.info)


def _recount(txn: "lmdb.Transaction[bytes]", databases: Databases) -> tuple[dict[bytes, KindCounts], list[str]]:
    counts: dict[bytes, KindCounts] = {}
    problems = []
    expiring = 0
    with txn.cursor(databases.meta) as cursor:
        for entry_id, packed in cursor:
            meta = Meta.unpack(packed)
            row = counts.setdefault(entry_id[:PROJECT_LENGTH], {}).setdefault(meta.kind, [0, 0])
            row[0] += 1
            row[1] += meta.cost
            indexed = [
                txn.get(entry_id, db=databases.entries),
                txn.get(recency_key(entry_id, meta.used), db=databases.recency),
            ]
            if meta.expires_ms != NEVER:
                expiring += 1
                indexed.append(txn.get(expiry_key(entry_id, meta.expires_ms), db=databases.expiry))
            if None in indexed:
                problems.append(f"entry {entry_id.hex()} has no body, recency or expiry")
    entries = _sum(counts)[0]
    for name, expected in (("entries", entries), ("recency", entries), ("expiry", expiring)):
        found = txn.stat(getattr(databases, name))["entries"]
        if found != expected:
            problems.append(f"{name} has {found} records, expected {expected}")
    return counts, problems


def _sum(counts: dict[bytes, KindCounts]) -> tuple[int, int]:
    rows = [row for kinds in counts.values() for row in kinds.values()]
    return sum(row[0] for row in rows), sum(row[1] for row in rows)
