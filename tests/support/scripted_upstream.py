"""A provider that a test scripts: every request is answered by the function that is set at that moment."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Script = Callable[["Call"], None]


class Call(BaseHTTPRequestHandler):
    """One request; a script reads `method`, `path`, `headers` and `body`, and answers by `reply` or by hand."""

    protocol_version = "HTTP/1.1"
    body = b""

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        """Answer with JSON, or with what `content_type` says; underscores in names become hyphens."""
        self.send_response_only(status)
        for name, value in {"content_type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        """End the connection here and now."""
        self.close_connection = True

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        server = self.server
        assert isinstance(server, ScriptedUpstream)
        server.calls.append(self.command + " " + self.path)
        server.script(self)

    do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815  names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in http.server
        """Nothing: a failing test shows what matters."""


class ScriptedUpstream(ThreadingHTTPServer):
    """`base_url` is what a provider key takes; `calls` holds `METHOD path` of all requests."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Call)
        self.script = script
        self.calls: list[str] = []
        self.released = threading.Event()
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def hang(self, _call: Call) -> None:
        """A script that says nothing until the test is over."""
        self.released.wait(60)


@contextmanager
def scripted_upstream(script: Script) -> Iterator[ScriptedUpstream]:
    """A running one, stopped at the end of the block."""
    server = ScriptedUpstream(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
