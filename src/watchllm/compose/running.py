"""Which proxies run on this home now, as their admin listeners tell."""

from http.client import HTTPException

import msgspec

from watchllm.compose.admin_client import connect, listeners
from watchllm.configuration import Configuration
from watchllm.stores import home


class RunningProxy(msgspec.Struct, frozen=True):
    """One process: its number, the port that it serves on, and the states of what it depends on, `ok` or what is wrong
    by name."""

    pid: int
    port: int
    dependencies: dict[str, str]


def is_claimed(configuration: Configuration) -> bool:
    """Whether a proxy holds this home. Raises OSError."""
    return home.is_claimed(configuration.home)


def running_proxies(configuration: Configuration) -> list[RunningProxy]:
    """Those that answer; one that is starting or hangs may be missing. Raises HomeUnusable."""
    found = []
    for name in listeners(configuration):
        connection, headers = connect(configuration, name)
        try:
            connection.request("GET", "/status", headers=headers)
            answer = connection.getresponse()
            if answer.status == 200:
                found.append(msgspec.json.decode(answer.read(), type=RunningProxy))
        except (OSError, HTTPException, msgspec.MsgspecError):
            continue  # The socket of a process that has ended, or one of another version.
        finally:
            connection.close()
    return found
