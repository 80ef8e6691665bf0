"""Asks this host's proxies why a request was a hit or a miss."""

from http.client import HTTPException
from typing import Any

import msgspec

from watchllm.compose.admin_client import connect, listeners
from watchllm.configuration import Configuration


def explain(configuration: Configuration, request_id: str) -> tuple[dict[str, Any] | None, int]:
    """What the first proxy that remembers the request says, None when none does; and how many were asked."""
    asked = 0
    for name in listeners(configuration):
        connection, headers = connect(configuration, name)
        try:
            connection.request("GET", f"/explain?id={request_id}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException):
            continue  # The socket of a process that has ended.
        finally:
            connection.close()
        asked += 1
        if answer.status == 200:
            return msgspec.json.decode(body, type=dict[str, Any]), asked
    return None, asked
