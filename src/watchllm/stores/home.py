"""The folder of all embedded state, `WATCHLLM_HOME`, and the master secret kept in it when none is configured.

What is made here is readable by its owner only. An existing folder is left as it is: its mode may be the operator's
choice (`watchllm doctor` warns of one that others can read).
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

SECRET_FILE = "secret.key"  # noqa: S105 (a file's name)
PROXY_LOCK = "proxy.lock"

_LOOK_SECONDS = 0.02
_PID_BYTES = 20


class HomeUnusable(Exception):
    """The folder or a file in it cannot be made, read or written; the message names it and says what to do."""


class HomeInUse(HomeUnusable):
    """Another proxy process holds the folder."""


def prepare(home: StrPath) -> None:
    """Make the folder, mode 0700, unless it exists. Raises HomeUnusable."""
    try:
        # Of the folders above only the missing ones are made, with the mode that the operator's umask gives.
        os.makedirs(home, mode=0o700, exist_ok=True)
    except OSError as error:
        raise HomeUnusable(
            f"{home} cannot be made: {error.strerror}. Set WATCHLLM_HOME to a folder of yours."
        ) from None


def claim_for_proxy(home: StrPath, *, wait_seconds: float) -> int:
    """Become the folder's only proxy process: a descriptor to keep open, as the kernel lets go of the lock when it is
    closed or the process ends, however it ends. A holder that is about to end is waited for.

    Raises HomeInUse, which names the holder, after `wait_seconds`; HomeUnusable where no lock can be had at all.
    """
    prepare(home)
    path = os.path.join(home, PROXY_LOCK)
    end = time.monotonic() + wait_seconds
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise HomeInUse(_in_use(home, descriptor)) from None
            time.sleep(_LOOK_SECONDS)
    except BaseException as error:
        if descriptor >= 0:
            os.close(descriptor)
        if isinstance(error, OSError):
            raise HomeUnusable(f"{path} cannot be made or locked: {error.strerror}") from None
        raise
    try:
        os.pwrite(descriptor, str(os.getpid()).encode().ljust(_PID_BYTES), 0)
    except OSError:
        pass  # A full disk: the number is only for the message of the next one, and the lock holds without it.
    return descriptor


def _in_use(home: StrPath, descriptor: int) -> str:
    holder = os.pread(descriptor, _PID_BYTES, 0).decode("ascii", "replace").strip()
    named = f"process {holder}" if holder.isdigit() else "another process"
    return (
        f"{named} is the proxy on {home} already, and this version runs one for each home. Stop it, or set "
        "WATCHLLM_HOME to another folder"
    )


def is_private(path: StrPath) -> bool:
    """Whether only the owner may read `path`."""
    return not stat.S_IMODE(os.stat(path).st_mode) & 0o077


def master_secret(home: StrPath, configured: str | None) -> str:
    """The configured secret, else the one in `home`, made at the first call.

    Two processes that start at once get the same one: the file appears under its name whole or not at all, and whoever
    comes second reads the first one's. Raises HomeUnusable.
    """
    if configured is not None:
        return configured
    prepare(home)
    path = os.path.join(home, SECRET_FILE)
    try:
        if not os.path.exists(path):
            _create(path)
        with open(path, "rb") as file:
            text = file.read().decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HomeUnusable(f"{path} cannot be read or made: {error}") from None
    if len(text) < 32:
        raise HomeUnusable(f"{path} does not hold a secret; restore it from your backup (provider keys depend on it)")
    return text


def _create(path: str) -> None:
    import secrets

    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_folder(folder)
    finally:
        os.unlink(draft)


def _sync_folder(folder: str) -> None:
    # Without it a power loss could forget the name of a file whose secret already sealed something.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
