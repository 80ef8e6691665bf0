"""nginx from the distribution as a real peer: upstream of the proxy, client-facing proxy before it, or yardstick."""

import os
import socket
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import BackgroundProcess
from tests.support.servers import require_server

_FRAME = """
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{http}
}}
"""


class Nginx:
    """A running nginx. `port` is where its first server listens."""

    def __init__(self, process: BackgroundProcess, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.stop()


def start_nginx(directory: Path, http: str, *, port: int | None = None, prefix: tuple[str, ...] = ()) -> Nginx:
    """Start nginx with the given content of its `http` block, in which `PORT` stands for the port to listen on.

    `prefix` is put before the command (such as `taskset -c 0`). Skips the calling test where nginx is not installed.
    """
    program = require_server("nginx")
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    # Its workers would give up root for a user who cannot read a test's temporary folder.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(_FRAME.format(user=user, directory=directory, http=http.replace("PORT", str(port))))
    process = BackgroundProcess(
        [*prefix, program, "-p", str(directory), "-c", str(configuration), "-g", "daemon off;"],
        log=directory / "output.log",
    )
    process.wait_until(lambda: listens(port), f"listening on port {port}")
    return Nginx(process, port)


def static_answer(body: bytes, *, status: int = 200, port: str = "PORT") -> str:
    """A `server` block that answers every request with `body` (no `'`, `$` or backslash in it)."""
    text = body.decode("ascii")
    if not {"'", "$", "\\"}.isdisjoint(text):
        raise ValueError("nginx would read a quote, dollar or backslash of this body as its own")
    return f"server {{ listen 127.0.0.1:{port}; location / {{ return {status} '{text}'; }} }}"


def listens(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
