"""The folder of all embedded state, `WATCHLLM_HOME`, and the master secret kept in it when none is configured.

What is made here is readable by its owner only. An existing folder is left as it is: its mode may be the operator's
choice (`watchllm doctor` warns of one that others can read).
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchllm.domain.paths import StrPath

SECRET_FILE = "secret.key"  # noqa: S105 (a file's name)
PREVIOUS_SECRET_FILE = "secret.key.previous"  # noqa: S105 (a file's name)
PROXY_LOCK = "proxy.lock"
IDENTITY_FILE = "home.id"

_LOOK_SECONDS = 0.02
_LOOKS = 3
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


def claim_for_proxy(home: StrPath, *, wait_seconds: float, shared: bool = False) -> int:
    """Become the folder's only proxy process, or (`shared`) one of several that all share it: a descriptor to keep
    open, as the kernel lets go of the lock when it is closed or the process ends, however it ends. A holder that is
    about to end is waited for.

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
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise HomeInUse(_in_use(home, descriptor, shared=shared)) from None
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


def is_claimed(home: StrPath) -> bool:
    """Whether a proxy process holds the folder. Raises OSError."""
    try:
        descriptor = os.open(os.path.join(home, PROXY_LOCK), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        for _ in range(_LOOKS):
            try:
                # Nothing less is refused beside those who share it.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Or somebody else asks: that is over before the next look.
                time.sleep(_LOOK_SECONDS)
            else:
                return False
        return True
    finally:
        os.close(descriptor)


def _in_use(home: StrPath, descriptor: int, *, shared: bool) -> str:
    holder = os.pread(descriptor, _PID_BYTES, 0).decode("ascii", "replace").strip()
    named = f"process {holder}" if holder.isdigit() else "another process"
    alone = "it has no WATCHLLM_REDIS_URL" if shared else "without WATCHLLM_REDIS_URL there is one for each home"
    return (
        f"{named} is the proxy on {home} already, and {alone}. Stop it, set WATCHLLM_HOME to another folder, or give "
        "both the same WATCHLLM_REDIS_URL"
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
            _create(path, _new_secret())
        return _read_secret(path)
    except OSError as error:
        raise HomeUnusable(f"{path} cannot be read or made: {error}") from None


def master_secrets(home: StrPath, configured: str | None, previous: str | None) -> tuple[str, ...]:
    """The master secret, then those that data may be sealed under while it is rotated: the configured previous one,
    and where none is configured that of the file beside `secret.key`. Raises HomeUnusable."""
    found = [master_secret(home, configured)]
    if previous is not None:
        found.append(previous)
    path = os.path.join(home, PREVIOUS_SECRET_FILE)
    if configured is None:
        try:
            found.append(_read_secret(path))
        except FileNotFoundError:
            pass  # No rotation is under way.
        except OSError as error:
            raise HomeUnusable(f"{path} cannot be read: {error}") from None
    return tuple(found)


def identity(home: StrPath) -> str:
    """A name of this folder that no other has, made at the first call: what tells the journals of hosts apart in a
    database that they share. Raises HomeUnusable."""
    from watchllm.domain.ids import new_id

    prepare(home)
    path = os.path.join(home, IDENTITY_FILE)
    try:
        if not os.path.exists(path):
            _create(path, new_id("home_"))
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HomeUnusable(f"{path} cannot be read or made: {error}") from None


@contextmanager
def rotating_secret(home: StrPath) -> Iterator[None]:
    """Be the only process that replaces the secret in `home`: who comes second waits. Raises HomeUnusable."""
    prepare(home)
    descriptor = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_secret(home: StrPath, new: str | None) -> str:
    """Put `new` (None = one that is made here) in the place of the secret in `home`, and return it. The old one is kept
    beside it until `forget_previous_secret`: whatever dies meanwhile, both are there.

    Call it within `rotating_secret`, everything being sealed under the secret that is replaced. Raises HomeUnusable.
    """
    path = os.path.join(home, SECRET_FILE)
    secret = new or _new_secret()
    try:
        _replace(os.path.join(home, PREVIOUS_SECRET_FILE), master_secret(home, None))
        _replace(path, secret)
    except OSError as error:
        raise HomeUnusable(f"{path} cannot be replaced: {error}") from None
    return secret


def forget_previous_secret(home: StrPath) -> None:
    """Remove the old secret, nothing being sealed under it any more."""
    try:
        os.unlink(os.path.join(home, PREVIOUS_SECRET_FILE))
    except FileNotFoundError:
        pass  # The rotation had come as far as this before.


def _new_secret() -> str:
    import secrets

    return secrets.token_hex(32)


def _read_secret(path: str) -> str:
    """Raises OSError where there is none, HomeUnusable for one that cannot be used."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if len(text) < 32:
        raise HomeUnusable(f"{path} does not hold a secret; restore it from your backup (provider keys depend on it)")
    return text


def _create(path: str, secret: str) -> None:
    """Make the file, unless there is one."""
    draft = _draft(path, secret)
    try:
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_folder(os.path.dirname(path))
    finally:
        os.unlink(draft)


def _replace(path: str, secret: str) -> None:
    """Make the file, in place of one that there may be."""
    draft = _draft(path, secret)
    try:
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    _sync_folder(os.path.dirname(path))


def _draft(path: str, secret: str) -> str:
    """A new file beside `path` that holds `secret`, on the disk; its path."""
    import secrets

    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(draft)
        raise
    return draft


def _sync_folder(folder: str) -> None:
    # Without it a power loss could forget the name of a file whose secret already sealed something.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
