"""What every figure is measured with: the cores, a folder, and the product, the simulator and nginx on their cores.

The processes are started with the tests' own support code, so that what is measured is what is tested.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from benchmarks import prompts
from benchmarks.load import Client, LoadFailed
from benchmarks.machine import Cores
from tests.support.nginx import Nginx, start_nginx, static_answer
from tests.support.processes import BackgroundProcess
from tests.support.product import WATCHLLM, Gateway, Installation, Project, Sim, upstream_environment


class Bench:
    """One run. Use it as a context manager: what it started ends with it."""

    def __init__(self) -> None:
        self.cores = Cores()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="watchllm-bench-")))
        self.bodies = prompts.write_bodies(self.folder / "bodies")
        self.cores.take_load_core()
        return self

    def __exit__(self, *exception: object) -> None:
        for process in list(BackgroundProcess.running):
            process.stop()
        self._stack.close()

    @contextlib.contextmanager
    def sim(self, *options: str) -> Iterator[Sim]:
        """The simulated provider on the load's core."""
        sim = Installation(self._new_folder("sim"), prefix=self.cores.load).start_sim("--record", "0", *options)
        try:
            yield sim
        finally:
            sim.process.stop()

    @contextlib.contextmanager
    def nginx(self, body: bytes, *, on_server_core: bool) -> Iterator[Nginx]:
        """nginx answering everything with `body`."""
        prefix = self.cores.server if on_server_core else self.cores.load
        nginx = start_nginx(self._new_folder("nginx"), static_answer(body), prefix=prefix)
        try:
            yield nginx
        finally:
            nginx.stop()

    @contextlib.contextmanager
    def proxy(
        self,
        base_url: str,
        *,
        environment: Mapping[str, str] | None = None,
        script: Path | None = None,
        semantic: str = "off",
        workers: int = 1,
    ) -> Iterator[tuple[Gateway, Project]]:
        """A proxy on the server's core, or as many `workers` on as many cores, with `base_url` as its OpenAI, and a
        project. `script` runs it another way; `semantic` is the project's mode."""
        variables = {**upstream_environment(base_url), **(environment or {})}
        prefix = self.cores.servers(workers)
        installation = Installation(self._new_folder("home"), variables, prefix=prefix)
        project = installation.project("benchmark", settings={"semantic": semantic})
        # -P: the script's own folder is no place to import from.
        program = (sys.executable, "-P", str(script)) if script else (WATCHLLM, "proxy", "--workers", str(workers))
        gateway = installation.start_proxy(program=program)
        try:
            yield gateway, project
        finally:
            gateway.stop()

    def prime(self, gateway: Gateway, project: Project) -> int:
        """Put the answers to all prompts into the cache; the size of one hit's body in bytes.

        Raises LoadFailed when a repeated request is not a hit.
        """
        client = Client(gateway.port, project.key)
        for number in range(prompts.COUNT):
            client.post(prompts.body(number))
        again = client.post(prompts.body(prompts.COUNT // 2))
        client.close()
        if again.headers.get(b"x-watchllm-cache") != b"HIT":
            raise LoadFailed(f"a repeated request is no hit: {again.headers}")
        return len(again.body)

    def _new_folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder)) / name
