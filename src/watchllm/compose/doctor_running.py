"""What a proxy of this home works with while it runs: its place, the cache, the journal, and the recorder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from watchllm.compose.cache_admin import CACHE_FOLDER
from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.compose.errors import FAILURES
from watchllm.compose.running import RunningProxy, is_claimed, running_proxies
from watchllm.configuration import Configuration
from watchllm.journal.series import folder_bytes
from watchllm.journal.status import recorder_lag, recorder_state
from watchllm.stores.lmdb.cache_look import look

_JOURNAL_FOLDER = "journal"
_UNTOLD: tuple[type[Exception], ...] = (OSError, *FAILURES)
_MIB = 1 << 20
# Segments are allocated ahead, 8 MiB each: with less than a few of them nothing can be recorded soon.
_FULL_BYTES = 32 * _MIB
_SCARCE_BYTES = 256 * _MIB


def examine_running(configuration: Configuration) -> Iterator[Check]:
    """The home folder has to exist; nothing is made in it."""
    yield _cache(configuration)
    yield _journal(configuration)
    try:
        claimed = is_claimed(configuration)
        proxies = running_proxies(configuration) if claimed else []
    except _UNTOLD as error:
        yield Check("proxy", FAILED, f"whether one runs cannot be told: {error}", "is the home folder yours?")
        return
    yield _recorder(configuration.home / _JOURNAL_FOLDER, is_needed=claimed)
    yield from _proxies(configuration, proxies, claimed=claimed)


def _cache(configuration: Configuration) -> Check:
    try:
        found = look(configuration.home / CACHE_FOLDER)
    except FAILURES as error:
        return Check("cache", FAILED, str(error), "as it says; nothing but stored answers is lost")
    bound = f"at most {_size(configuration.cache_max_bytes)}"
    if found is None:
        return Check("cache", OK, f"no answer was stored yet; {bound}")
    if not found.is_current:
        return Check("cache", WARNING, "its file is of another version", "nothing: the next proxy empties it")
    return Check("cache", OK, f"{found.entries} answers, {_size(found.bytes)}; {bound}")


def _journal(configuration: Configuration) -> Check:
    folder = configuration.home / _JOURNAL_FOLDER
    policy = f"when full: {configuration.journal_full}"
    place = folder if folder.exists() else configuration.home
    if not place.is_dir() or not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        detail = f"{place} is not a folder that you may write to; {policy}"
        return Check("journal", FAILED, detail, f"make it one; {_without_journal(configuration)}")
    try:
        used = folder_bytes(folder) if place == folder else 0
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check("journal", FAILED, f"{folder}: {error}; {policy}", "are disk and folder in order?")
    bound = configuration.journal_max_bytes
    detail = f"{folder}: {_size(used)} of at most {_size(bound)}, {_size(free)} free on the disk; {policy}"
    if used >= bound:
        return Check("journal", FAILED, detail, "start `watchllm recorder`, or raise WATCHLLM_JOURNAL_MAX_BYTES")
    if free < _FULL_BYTES:
        return Check("journal", FAILED, detail, f"make room on the disk; {_without_journal(configuration)}")
    if free < _SCARCE_BYTES:
        return Check("journal", WARNING, detail, "make room on the disk")
    return Check("journal", OK, detail)


def _without_journal(configuration: Configuration) -> str:
    if configuration.journal_full == "refuse":
        return "proxies refuse requests that they cannot record"
    return "proxies serve requests that they cannot record, and these are lost to usage"


def _recorder(folder: Path, *, is_needed: bool) -> Check:
    state, lag = recorder_state(folder), recorder_lag(folder)
    if lag is None and not is_needed:
        return Check("recorder", OK, "does not run, and no proxy does")
    if lag is None:
        advice = "start `watchllm recorder` on this home, or use `watchllm up`"
        return Check("recorder", WARNING, state.removeprefix("degraded: "), advice)
    if state == "ok":
        return Check("recorder", OK, f"runs, {lag:.1f} s behind")
    return Check("recorder", WARNING, state.removeprefix("degraded: "), "see its log")


def _proxies(configuration: Configuration, proxies: list[RunningProxy], *, claimed: bool) -> Iterator[Check]:
    if not claimed:
        yield Check("proxy", OK, "none runs on this home", "`watchllm up` starts one")
    elif not proxies:
        detail = "one holds this home, and does not answer on its admin listener"
        yield Check("proxy", WARNING, detail, "try again in a moment; else see its log")
    for proxy in proxies:
        detail = f"process {proxy.pid} serves this home on port {proxy.port}"
        wrong = [
            f"{name}: {state}"
            for name, state in proxy.dependencies.items()
            if state not in ("ok", "warming") and name != "recorder"
        ]
        if wrong:
            yield Check("proxy", WARNING, f"{detail}; {'; '.join(wrong)}", "see its log")
        elif proxy.port != configuration.proxy_port and configuration.proxy_port:
            advice = f"clients use that port; {configuration.proxy_port} is only what this shell is set to"
            yield Check("proxy", OK, detail, advice)
        else:
            yield Check("proxy", OK, detail)


def _size(count: int) -> str:
    if count < _MIB:
        return f"{count / 1024:.1f} KiB"
    return f"{count / _MIB:.1f} MiB" if count < 1024 * _MIB else f"{count / (1024 * _MIB):.1f} GiB"
