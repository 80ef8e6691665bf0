"""Open LMDB environments of this process, one per path: LMDB forbids opening one twice in a process.

Open after a fork: a child can neither use an environment of its parent nor open the same files again while it holds the
inherited one (LMDB's locks belong to the process), so a parent that forks must not have it open.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import lmdb

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_GIB = 1 << 30
_open: dict[str, tuple[lmdb.Environment, int]] = {}
_inherited: dict[str, tuple[lmdb.Environment, int]] = {}
_lock = threading.Lock()


class StoreBroken(Exception):
    """A store's files cannot be used; the message names the folder and says what to do."""


def acquire(folder: StrPath, *, map_size: int = _GIB, max_readers: int = 1024) -> lmdb.Environment:
    """The environment in `folder`, made if absent (folder 0700, files 0600); release it as often as acquired.

    `map_size` in bytes bounds the file, which is sparse and grows with its content. Raises StoreBroken.
    """
    name = os.path.realpath(folder)
    with _lock:
        environment, users = _open.get(name, (None, 0))
        if name in _inherited:
            raise StoreBroken(f"{folder} was open when this process was forked; open it after the fork")
        if environment is None:
            environment = _open_new(folder, map_size, max_readers)
        _open[name] = (environment, users + 1)
    return environment


def release(folder: StrPath) -> None:
    """Close the environment when its last user in this process lets go."""
    name = os.path.realpath(folder)
    with _lock:
        environment, users = _open.get(name, (None, 0))
        if environment is None:
            return
        if users > 1:
            _open[name] = (environment, users - 1)
            return
        del _open[name]
        environment.close()


def _disown() -> None:
    global _lock
    # Another thread of the parent may have held the lock at the fork.
    _lock = threading.Lock()
    _inherited.update(_open)
    _open.clear()


os.register_at_fork(after_in_child=_disown)


def _open_new(folder: StrPath, map_size: int, max_readers: int) -> lmdb.Environment:
    try:
        os.makedirs(os.path.dirname(os.path.realpath(folder)), mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # A file that has grown beyond `map_size` keeps its size: LMDB takes the larger.
        return lmdb.open(
            os.fspath(folder),
            map_size=map_size,
            mode=0o600,
            max_readers=max_readers,
            # Without it each read transaction is allocated anew and searches the reader table for a slot.
            max_spare_txns=1,
            # A lost last commit is repaired by the publisher at its start; the file itself stays consistent.
            metasync=False,
        )
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise StoreBroken(
            f"{folder} is damaged or of another format: {error}. Remove this folder: "
            "`watchllm up` derives it from the database again."
        ) from None
    except (OSError, lmdb.Error) as error:
        raise StoreBroken(
            f"{folder} cannot be opened: {error}. Is it yours, and the disk neither full nor read-only?"
        ) from None
