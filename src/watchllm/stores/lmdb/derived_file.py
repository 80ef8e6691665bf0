"""A file of what can be had again, the exact cache's and the vectors': its format, how it is opened, what values cost.

It is bounded in bytes, and emptied where another version's format is found. Its sub-database `info` holds the format.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import lmdb

from watchllm.stores.lmdb.environment import StoreBroken

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

U64 = struct.Struct(">Q")

DATA_FILE = "data.mdb"
_FORMAT_KEY = b"format"
_U32 = struct.Struct(">I")
_PAGE = 4096
_LARGEST_INLINE = 1980  # LMDB moves a node of half a page and more to overflow pages of its own.
_MAP_SLACK = 128 << 20


def value_cost(value_length: int, key_length: int) -> int:
    """Bytes on disk that a value of this length is taken to cost with its key."""
    if value_length > _LARGEST_INLINE:
        return (value_length + 16 + _PAGE - 1) // _PAGE * _PAGE
    return (value_length + key_length) * 8 // 5


def map_size_for(max_bytes: int) -> int:
    """The bound of the file: twice the entries, for pages that are free or half filled, and room for transactions."""
    return 2 * max_bytes + _MAP_SLACK


def open_derived(
    folder: StrPath, max_bytes: int, names: tuple[str, ...], version: int
) -> tuple[lmdb.Environment, list[Any], int | None]:
    """Open or create the file in `folder` for `max_bytes` of values: the environment, the handles of the sub-databases
    of these `names`, `info` first, and the format that was found and dropped for `version`, None = there was none.

    Raises StoreBroken.
    """
    path = os.path.join(folder, DATA_FILE)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        env = lmdb.open(
            os.fspath(folder),
            map_size=map_size_for(max_bytes),
            mode=0o600,
            metasync=False,
            readahead=False,
            max_readers=512,
            max_dbs=32,
            max_spare_txns=4,
            lib_version=0,
        )
    except (lmdb.Error, OSError) as error:
        raise StoreBroken(advice(path, error)) from error
    try:
        check_length(env, path)
        handles, dropped = _open_databases(env, path, names, version)
    except lmdb.Error as error:
        env.close()
        raise StoreBroken(advice(path, error)) from error
    except StoreBroken:
        env.close()
        raise
    return env, handles, dropped


def _open_databases(
    env: lmdb.Environment, path: str, names: tuple[str, ...], version: int
) -> tuple[list[Any], int | None]:
    # Handles outlive only a write transaction. It changes nothing in a file that is in order, and syncs nothing then.
    with env.begin(write=True) as writer:
        found = format_of(env, writer, path)
        dropped = None if found == version else found
        if dropped is not None:
            for name in env.dbs(writer):
                writer.drop(env.open_db(name, writer, create=False))
        handles = [env.open_db(name.encode(), writer) for name in names]
        if found != version:
            writer.put(_FORMAT_KEY, _U32.pack(version), db=handles[0])
    return handles, dropped


def format_of(env: lmdb.Environment, txn: lmdb.Transaction[bytes], path: str) -> int | None:
    """The file's format, None for an empty file. Raises StoreBroken for a file that is not a cache."""
    if txn.stat()["entries"] == 0:
        return None
    try:
        value = txn.get(_FORMAT_KEY, db=env.open_db(b"info", txn, create=False))
    except (lmdb.NotFoundError, lmdb.IncompatibleError):
        value = None
    if value is None or len(value) != _U32.size:
        raise StoreBroken(f"{path} is an LMDB file of something else: choose another folder for the cache")
    return int(_U32.unpack(value)[0])


def check_length(env: lmdb.Environment, path: str) -> None:
    """Refuse a file that was cut: reading beyond the end of a mapped file kills the process (SIGBUS)."""
    expected = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if os.path.getsize(path) >= expected:
        return
    # Pages that were allocated and given back in the last transaction may lie beyond the end of a sound file.
    from lmdb.verify import VerifyError, verify

    try:
        sound = not verify(path)  # type: ignore[no-untyped-call]
    except VerifyError:
        sound = False
    if not sound:
        raise StoreBroken(advice(path, RuntimeError(f"it is shorter than its {expected} bytes")))


def advice(path: str, error: Exception) -> str:
    """What to do about a file that cannot be opened."""
    return (
        f"the cache {path} cannot be opened: {error}. If the folder's owner, permissions and disk are in order, stop "
        f"every process that uses it and delete the folder {os.path.dirname(path)}: it holds nothing but cached answers"
    )
