"""The product as a user runs it: the `watchllm` commands as subprocesses, over a home folder of their own.

An `Installation` is one WATCHLLM_HOME: it runs commands in it, makes projects and keys, and starts the long-running
ones. `Sim` and `Gateway` are such processes once they are ready.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.database import lay_in
from tests.support.ports import free_port
from tests.support.processes import BackgroundProcess
from tests.support.raw_http import ConnectionClosed, RawResponse, exchange, request_bytes
from watchllm.compose.control import open_control_plane
from watchllm.compose.explain import explain
from watchllm.configuration import Configuration, home_database_url, load
from watchllm.control.plane import ControlPlane
from watchllm.domain.settings import parse_settings

WATCHLLM = str(Path(sys.executable).parent / "watchllm")
UPSTREAM_KEY = "sk-upstream-secret"

# Without a locale, which is UTF-8 to Python, whatever a developer's is.
_INHERITED = ("PATH", "TMPDIR", "HOME", "VIRTUAL_ENV", "CI")


@dataclass(frozen=True, slots=True)
class Project:
    """A project and one of its keys, made for a test."""

    id: str
    key: str


class Sim:
    """A running simulated provider. `base_url` is what `OPENAI_BASE_URL` takes."""

    def __init__(self, process: BackgroundProcess, port: int) -> None:
        self.process = process
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def requests(self) -> list[dict[str, Any]]:
        """What it received since the last reset, oldest first: method, path, headers, body."""
        received = self._get("/sim/requests").json()
        return list(received["requests"] if isinstance(received, dict) else received)

    def stats(self) -> dict[str, Any]:
        """`calls`, `by_path`, `open`, `cancelled` since the last reset."""
        return dict(self._get("/sim/stats").json())

    def calls(self) -> int:
        return int(self.stats()["calls"])

    def reset(self) -> None:
        answer = exchange(self.port, request_bytes("/sim/reset", body={}), method=b"POST")
        assert answer.status in (200, 204), answer

    def _get(self, path: str) -> RawResponse:
        answer = exchange(self.port, request_bytes(path))
        assert answer.status == 200, answer
        return answer


class Gateway:
    """A running proxy (alone or under `watchllm up`). `base_url` is what an OpenAI client takes."""

    def __init__(self, process: BackgroundProcess, port: int, installation: "Installation") -> None:
        self.process = process
        self.port = port
        self.installation = installation
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def post(
        self, path: str, key: str | None, body: object, *, headers: dict[str, str] | None = None, timeout: float = 10.0
    ) -> RawResponse:
        """POST `body` (JSON, or bytes as they are) on a connection of its own."""
        data = request_bytes(path, key=key, body=body, headers=headers)
        return exchange(self.port, data, method=b"POST", timeout=timeout)

    def get(self, path: str, key: str | None = None, *, headers: dict[str, str] | None = None) -> RawResponse:
        return exchange(self.port, request_bytes(path, key=key, headers=headers))

    def chat(self, key: str, text: str, *, headers: dict[str, str] | None = None, **fields: object) -> RawResponse:
        """One chat completion that asks `text` of `gpt-4o-mini` (or of `model`)."""
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}
        return self.post("/v1/chat/completions", key, body, headers=headers)

    def explained(self, answer: RawResponse) -> dict[str, Any]:
        """What `watchllm explain --json` prints of an answer; asked for in this process, which saves its start."""
        told, _ = explain(self.installation.configuration(), answer.header("X-Request-Id") or "")
        assert told is not None, f"no proxy remembers {answer}"
        return told

    def stop(self) -> int:
        return self.process.stop()


@dataclass
class Installation:
    """One home folder with the environment that every process in it gets.

    `prefix` is put before the long-running commands (such as `taskset -c 0`).
    """

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `watchllm …` to its end. Raises AssertionError with its output when `check` and it did not exit 0."""
        done = subprocess.run(
            [WATCHLLM, *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            env=self._environment(),
            timeout=60,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"watchllm {' '.join(arguments)} exited {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def run_json(self, *arguments: str, stdin: str = "") -> Any:
        """Run `watchllm … --json` and return the document that it printed."""
        return json.loads(self.run(*arguments, "--json", stdin=stdin).stdout)

    def project(
        self, name: str = "test", *, settings: Mapping[str, str] | None = None, organization: str | None = None
    ) -> Project:
        """A new project with a key, its settings given as `project set` takes them; None = of the first organization.

        Made through the control plane in this process, which is what the commands do and saves their start.
        """
        with self.control_plane() as plane:
            project = plane.create_project(name, organization_id=organization)
            if settings:
                plane.set_project(project.id, parse_settings(settings))
            return Project(project.id, plane.create_key(project.id).secret)

    def key(self, project: str, *, test: bool = False, scopes: Sequence[str] = ("inference",)) -> str:
        """A new key of a project."""
        with self.control_plane() as plane:
            return str(plane.create_key(project, test=test, scopes=scopes).secret)

    def control_plane(self) -> AbstractContextManager[ControlPlane]:
        """The control plane of this home, in this process."""
        configuration = self.configuration()
        if configuration.database_url == home_database_url(configuration.directory):
            lay_in(self.home)
        return open_control_plane(configuration, actor="tests")

    def configuration(self) -> Configuration:
        """What a process started here would read."""
        return load({}, self._environment())

    def start_proxy(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        program: Sequence[str] = (WATCHLLM, "proxy"),
    ) -> Gateway:
        """Start `watchllm proxy` (or another `program`) on a free port and, unless told otherwise, wait until it is
        ready."""
        port = free_port()
        process = self._start(*program[1:], program=program[0], environment=environment, WATCHLLM_PROXY_PORT=str(port))
        if wait:
            process.wait_until(lambda: _answers(port, "/health/ready"), "being ready")
        return Gateway(process, port, self)

    def start_up(self, *options: str, environment: Mapping[str, str] | None = None) -> Gateway:
        """Start `watchllm up` on free ports and wait until its proxy is ready."""
        port, console = free_port(), free_port()
        ports = ("--proxy-port", str(port), "--console-port", str(console))
        process = self._start("up", *ports, *options, environment=environment)
        process.wait_until(lambda: _answers(port, "/health/ready"), "being ready", within=60)
        return Gateway(process, port, self)

    def start_console(self, *, environment: Mapping[str, str] | None = None) -> tuple[BackgroundProcess, int]:
        """Start `watchllm console` on a free port and wait until it answers; the process and the port."""
        port = free_port()
        process = self._start("console", environment=environment, WATCHLLM_CONSOLE_PORT=str(port))
        process.wait_until(lambda: _answers(port, "/health"), "being ready")
        return process, port

    def start_recorder(self, *, prefix: tuple[str, ...] = ()) -> BackgroundProcess:
        """Start `watchllm recorder`, with a `prefix` of its own."""
        return replace(self, prefix=prefix)._start("recorder")

    def start_sim(self, *options: str) -> Sim:
        """Start `watchllm sim` on a free port and wait until it answers."""
        port = free_port()
        process = self._start("sim", "--port", str(port), *options)
        process.wait_until(lambda: _answers(port, "/sim/stats"), "being ready")
        return Sim(process, port)

    def _start(
        self,
        *arguments: str,
        program: str = WATCHLLM,
        environment: Mapping[str, str] | None = None,
        **variables: str,
    ) -> BackgroundProcess:
        self.home.mkdir(parents=True, exist_ok=True)
        log = self.home.with_name(f"{self.home.name}-{Path(arguments[0]).stem}.log")
        return BackgroundProcess(
            [*self.prefix, program, *arguments],
            log=log,
            environment={**self._environment(), **(environment or {}), **variables},
            directory=self.home.parent,
        )

    def _environment(self) -> dict[str, str]:
        # Nothing else is inherited: a developer's OPENAI_API_KEY must not decide where a test's requests go.
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {**inherited, "WATCHLLM_HOME": str(self.home), **self.environment}


def upstream_environment(base_url: str) -> dict[str, str]:
    """What makes the server at `base_url` the instance's OpenAI."""
    return {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": UPSTREAM_KEY}


def _answers(port: int, path: str) -> bool:
    try:
        return exchange(port, request_bytes(path), timeout=2).status == 200
    except (OSError, ConnectionClosed):
        return False
