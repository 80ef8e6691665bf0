"""A look at the exact cache's file that changes nothing in it: opening the cache can empty or shrink it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import lmdb
import msgspec

from watchllm.stores.lmdb.cache_layout import FORMAT, TOTAL, TOTAL_KEY
from watchllm.stores.lmdb.derived_file import DATA_FILE, advice, check_length, format_of
from watchllm.stores.lmdb.environment import StoreBroken

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath


class CacheLook(msgspec.Struct, frozen=True):
    """`is_current`: the file has the format of this version; in another one it is emptied at the next opening."""

    entries: int
    bytes: int
    is_current: bool


def look(folder: StrPath) -> CacheLook | None:
    """What is in the cache, None where there is none yet. Raises StoreBroken.

    Not for a process that has the cache open itself: LMDB forbids to open it twice.
    """
    path = os.path.join(folder, DATA_FILE)
    if not os.path.exists(path):
        return None
    try:
        env = lmdb.open(os.fspath(folder), readonly=True, max_dbs=32, lib_version=0)
    except (lmdb.Error, OSError) as error:
        raise StoreBroken(advice(path, error)) from error
    try:
        check_length(env, path)
        with env.begin() as txn:
            found = format_of(env, txn, path)
            if found != FORMAT:
                return CacheLook(0, 0, is_current=found is None)
            total = txn.get(TOTAL_KEY, db=env.open_db(b"info", txn, create=False))
            entries, size = (0, 0) if total is None else TOTAL.unpack(total)
            return CacheLook(entries, size, is_current=True)
    except lmdb.Error as error:
        raise StoreBroken(advice(path, error)) from error
    finally:
        env.close()
