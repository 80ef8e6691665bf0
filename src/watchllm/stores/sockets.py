"""Where the Unix sockets of a host's processes are: `WATCHLLM_HOME/run`, or a private folder where that path is too
long for a socket's address (107 bytes on Linux)."""

import hashlib
import os
from pathlib import Path

from watchllm.stores.home import HomeUnusable

_LONGEST_ADDRESS = 100
_NAME_ROOM = 28


def socket_folder(home: Path) -> Path:
    """The folder, made with mode 0700 if it is missing. Raises HomeUnusable when somebody else could write to it."""
    folder = home / "run"
    if len(os.fsencode(folder)) + _NAME_ROOM > _LONGEST_ADDRESS:
        import tempfile  # rare, and four milliseconds of a start

        name = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
        folder = Path(tempfile.gettempdir(), f"watchllm-{os.geteuid()}-{name}")
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o022 or not folder.is_dir() or folder.is_symlink():
        raise HomeUnusable(f"{folder} does not belong to this user alone; remove it or set TMPDIR to a folder of yours")
    return folder
