"""Where the Unix sockets of a host's processes are: `WATCHLLM_HOME/run`, or a private folder where that path is too
long for a socket's address (107 bytes on Linux). Import-light: a proxy has its socket before it takes requests."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from watchllm.stores.home import HomeUnusable

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_ADDRESS = 100
_NAME_ROOM = 28


def socket_folder(home: Path) -> Path:
    """As `socket_directory`, for those who like a Path."""
    from pathlib import Path

    return Path(socket_directory(os.fspath(home)))


def socket_directory(home: str) -> str:
    """The folder, made with mode 0700 if it is missing. Raises HomeUnusable when somebody else could write to it, and
    OSError where it cannot be made."""
    folder = os.path.join(home, "run")
    if len(os.fsencode(folder)) + _NAME_ROOM > _LONGEST_ADDRESS:
        import tempfile  # rare, and four milliseconds of a start

        name = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
        folder = os.path.join(tempfile.gettempdir(), f"watchllm-{os.geteuid()}-{name}")
    try:
        os.mkdir(folder, mode=0o700)
    except FileExistsError:
        pass  # Made earlier, or by somebody else, which is seen now.
    state = os.lstat(folder)
    if state.st_uid != os.geteuid() or state.st_mode & 0o022 or not stat.S_ISDIR(state.st_mode):
        raise HomeUnusable(f"{folder} does not belong to this user alone; remove it or set TMPDIR to a folder of yours")
    return folder
