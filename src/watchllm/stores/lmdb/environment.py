"""Open LMDB environments of this process, one per path: LMDB forbids opening one twice in a process.

Open after a fork: an environment inherited from the parent must not be used, so a child begins with an empty registry.
"""

import os
import threading
from pathlib import Path

import lmdb

_GIB = 1 << 30
_open: dict[str, tuple[lmdb.Environment, int]] = {}
_lock = threading.Lock()


class StoreBroken(Exception):
    """A store's files cannot be used; the message names the folder and says what to do."""


def acquire(folder: Path, *, map_size: int = _GIB, max_readers: int = 1024) -> lmdb.Environment:
    """The environment in `folder`, made if absent (folder 0700, files 0600); release it as often as acquired.

    `map_size` in bytes bounds the file, which is sparse and grows with its content. Raises StoreBroken.
    """
    name = str(folder.resolve())
    with _lock:
        environment, users = _open.get(name, (None, 0))
        if environment is None:
            environment = _open_new(folder, map_size, max_readers)
        _open[name] = (environment, users + 1)
    return environment


def release(folder: Path) -> None:
    """Close the environment when its last user in this process lets go."""
    name = str(folder.resolve())
    with _lock:
        environment, users = _open.get(name, (None, 0))
        if environment is None:
            return
        if users > 1:
            _open[name] = (environment, users - 1)
            return
        del _open[name]
        environment.close()


def _forget_inherited() -> None:
    global _lock
    # Another thread of the parent may have held the lock at the fork.
    _lock = threading.Lock()
    _open.clear()


os.register_at_fork(after_in_child=_forget_inherited)


def _open_new(folder: Path, map_size: int, max_readers: int) -> lmdb.Environment:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700, exist_ok=True)
        # A file that has grown beyond `map_size` keeps its size: LMDB takes the larger.
        return lmdb.open(
            str(folder),
            map_size=map_size,
            mode=0o600,
            max_readers=max_readers,
            # Without it each read transaction is allocated anew and searches the reader table for a slot.
            max_spare_txns=1,
            # A lost last commit is repaired by the publisher at its start; the file itself stays consistent.
            metasync=False,
        )
    except (OSError, lmdb.Error) as error:
        raise StoreBroken(
            f"{folder} cannot be opened: {error}. If the disk is fine, remove this folder: "
            "`watchllm up` derives it from the database again."
        ) from None
