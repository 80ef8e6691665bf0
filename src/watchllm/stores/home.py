"""The folder of all embedded state, `WATCHLLM_HOME`, and the master secret kept in it when none is configured.

What is made here is readable by its owner only. An existing folder is left as it is: its mode may be the operator's
choice (`watchllm doctor` warns of one that others can read).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

SECRET_FILE = "secret.key"  # noqa: S105 (a file's name)


class HomeUnusable(Exception):
    """The folder or a file in it cannot be made, read or written; the message names it and says what to do."""


def prepare(home: StrPath) -> None:
    """Make the folder, mode 0700, unless it exists. Raises HomeUnusable."""
    try:
        # Of the folders above only the missing ones are made, with the mode that the operator's umask gives.
        os.makedirs(home, mode=0o700, exist_ok=True)
    except OSError as error:
        raise HomeUnusable(
            f"{home} cannot be made: {error.strerror}. Set WATCHLLM_HOME to a folder of yours."
        ) from None


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
