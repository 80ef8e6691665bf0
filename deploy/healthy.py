"""Whether the process of this container is well: `healthy.py proxy | console | recorder | recorder-alive`.

Exits 0, else 1 with why. A proxy is well when it takes requests (`/health/ready` is 200, also where something is
degraded), a recorder when it applies what the proxies beside it write. One that is only kept from that, as by a
database that is away, is alive: to start it again would not help.
"""

import http.client
import os
import ssl
import sys
import time

from watchllm.configuration import Configuration, load
from watchllm.journal.status import recorder_state, recorder_status

_SECONDS = 4
_SILENT_SECONDS = 60


def main(role: str) -> int:
    configuration = load({}, os.environ)
    if role == "recorder":
        state = recorder_state(configuration.home / "journal")
        wrong = None if state == "ok" else state
    elif role == "recorder-alive":
        wrong = _silent(configuration)
    elif role == "console":
        wrong = _asked(configuration, configuration.console_port, "/health")
    else:
        wrong = _asked(configuration, configuration.proxy_port, "/health/ready")
    if wrong is not None:
        sys.stdout.write(f"{wrong}\n")
    return 0 if wrong is None else 1


def _silent(configuration: Configuration) -> str | None:
    status = recorder_status(configuration.home / "journal")
    if status is None:
        return "no recorder has said anything"
    seconds = time.time() - status.at_ms / 1000
    return None if seconds < _SILENT_SECONDS else f"the recorder has said nothing for {seconds:.0f} s"


def _asked(configuration: Configuration, port: int, path: str) -> str | None:
    """What is wrong, None where the answer is 200."""
    connection: http.client.HTTPConnection
    if configuration.tls_cert is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    else:
        # The certificate is for the name that clients use; this never leaves the container.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_SECONDS, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(4096).decode("utf-8", "replace")
    except OSError as error:
        return f"port {port}: {error}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{path} answered {answer.status}: {body}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "proxy"))
