"""A real redis-server on a free port: plain, with TLS and a password, or as a cluster of one node or of several."""

import shutil
import signal
import socket
import ssl
from pathlib import Path

import trustme

from tests.support.ports import free_port
from tests.support.processes import BackgroundProcess
from tests.support.servers import require_server
from tests.support.waiting import wait_for

PASSWORD = "s3cret/with@signs"
_PASSWORD_IN_URL = "s3cret%2Fwith%40signs"


class RedisServer:
    """A server that a test may pause, stop and start again on the same port. Nothing of it is kept on disk."""

    def __init__(self, directory: Path, *options: str, tls: bool = False, password: bool = False) -> None:
        self._program = require_server("redis-server")
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.tls = tls
        self._password = password
        self._options = [*options, *(["--requirepass", PASSWORD] if password else [])]
        if tls:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(directory / "ca.pem")
            authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
                directory / "server.pem"
            )
        self.process: BackgroundProcess | None = None
        self.start()

    @property
    def url(self) -> str:
        credentials = f":{_PASSWORD_IN_URL}@" if self._password else ""
        place = f"{credentials}127.0.0.1:{self.port}"
        return f"rediss://{place}?ssl_ca_certs={self._directory / 'ca.pem'}" if self.tls else f"redis://{place}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process share this server, with others and with a busy machine: what is exact is so while Redis
        answers in time, and here that may be later than the 50 ms that a request waits by default."""
        return {"WATCHLLM_REDIS_URL": self.url, "WATCHLLM_REDIS_TIMEOUT": "2"}

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        shutil.rmtree(self._directory / "data", ignore_errors=True)
        (self._directory / "data").mkdir()
        pem = str(self._directory / "server.pem")
        port = ["--port", str(self.port)]
        if self.tls:
            port = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", pem, "--tls-key-file", pem]
            port += ["--tls-ca-cert-file", str(self._directory / "ca.pem"), "--tls-auth-clients", "no"]
        fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self._directory / "data")]
        self.process = BackgroundProcess(
            [self._program, *port, *fixed, *self._options], log=self._directory / "redis.log"
        )
        self.process.wait_until(self._answers, "answering")

    def command(self, *arguments: str | int | bytes) -> bytes:
        """The raw reply to one command, for short ones."""
        with self._connection() as connection:
            if self._password:
                connection.sendall(_encoded("AUTH", PASSWORD))
                connection.recv(100)
            connection.sendall(_encoded(*arguments))
            return connection.recv(1 << 16)

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it; what it held is gone. Harmless when it is stopped or paused."""
        if self.process is not None:
            self.process.signal(signal.SIGCONT)
            self.process.stop()
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process = None

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False

    def _connection(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if not self.tls:
            return plain
        context = ssl.create_default_context(cafile=str(self._directory / "ca.pem"))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")


class RedisCluster:
    """A cluster of `nodes` masters. Its URL names the first node only: the others are for the client to find."""

    def __init__(self, directory: Path, nodes: int = 2) -> None:
        # The bus listens 10,000 above the port.
        self.nodes = [
            RedisServer(directory / str(index), "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            for index in range(nodes)
        ]
        step = 16384 // nodes
        for index, node in enumerate(self.nodes):
            last = 16383 if index == nodes - 1 else (index + 1) * step - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", index * step, last)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            bus = node._options[node._options.index("--cluster-port") + 1]
            first.command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for node in self.nodes:
            wait_for(lambda node=node: b"cluster_state:ok" in node.command("CLUSTER", "INFO"), "the cluster to be up")  # type: ignore[misc]

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def _encoded(*arguments: str | int | bytes) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
