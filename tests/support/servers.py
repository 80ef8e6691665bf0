"""Programs that a test needs and that may not be there: found, or the test is skipped with its reason.

With `CI=true` a missing program is a failure, so that a runner which lost one cannot pass by skipping.
"""

import os
import shutil
from typing import NoReturn

import pytest

_PLACES = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin", "/opt/homebrew/bin"))

_HOW = {
    "nginx": "apt-get install nginx",
    "curl": "apt-get install curl",
    "chromium": "apt-get install chromium",
    "redis-server": "apt-get install redis-server",
    "pgbouncer": "apt-get install pgbouncer",
    "wrk": "apt-get install wrk",
    "localedef": "apt-get install libc-bin",
}


def require_server(name: str) -> str:
    """The path of the program `name`, or the calling test is skipped (fails where CI=true) with what to install."""
    path = shutil.which(name) or shutil.which(name, path=_PLACES)
    if path is None:
        unavailable(f"{name} is not installed ({_HOW.get(name, 'see CONTRIBUTING.md')})")
    return path


def require_root(why: str) -> None:
    """Skip (fail where CI=true) unless the tests run as root."""
    if os.geteuid() != 0:
        unavailable(f"needs root: {why}")


def unavailable(reason: str) -> NoReturn:
    """Skip the calling test with `reason`, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true nothing may be skipped for that", pytrace=False)
    pytest.skip(reason)
