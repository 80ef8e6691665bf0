"""`watchllm up`: bootstrap, then one forked child per role, watched and started again when it dies.

The supervisor imports what its children need before it forks them, so that a child starts in milliseconds; it runs no
event loop and opens no store itself, because neither survives a fork. The children hold the reading end of a pipe whose
other end only the supervisor has: when it dies, however it dies, they see the end of the pipe and stop.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import msgspec

from watchllm.compose import proxy as proxy_process
from watchllm.configuration import Configuration

_READY_SECONDS = 30.0
_BOOTSTRAP_SECONDS = 300.0
_RESTART_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS = 30.0
_KILL_AFTER_DRAIN_SECONDS = 5.0
_READ_SIZE = 65_536
# What the first curl line asks, by the provider that answers it.
_FIRST_MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "groq": "groq/llama-3.1-8b-instant",
    "openrouter": "openrouter/openai/gpt-4o-mini",
}


Run = Callable[[Configuration, int, Callable[[int], None]], int]


class Role(msgspec.Struct):
    """A child to keep alive.

    `run` gets the configuration with the ports that are in use, the pipe to watch, and a function to call with its own
    port once it listens.

    `alive` is the supervisor's end of that pipe; each child has one of its own, because whether a pipe blocks is shared
    by all who hold it.
    """

    name: str
    run: Run
    pid: int = 0
    port: int = 0
    started: float = 0.0
    failures: int = 0
    alive: int = -1


class StartFailed(Exception):
    """A role did not come up; the message says why."""


def no_more() -> list[Role]:
    return []


def run_up(configuration: Configuration, *, console: bool, extra: Callable[[], list[Role]] = no_more) -> int:
    """Bring everything up and keep it up until SIGTERM or SIGINT; the exit code.

    `extra` is asked for more roles once the database is ready; they start last.
    """
    import setproctitle

    setproctitle.setproctitle("watchllm up")
    # A start runs without collections. From here on there are some; what is loaded by now is left out of them, and so
    # stays shared with the children.
    gc.freeze()
    gc.enable()
    roles = [Role("proxy", _run_proxy)]
    if console:
        roles.append(Role("console", _run_console))
    roles.append(Role("recorder", _run_recorder))
    supervisor = Supervisor(roles, configuration)
    try:
        made = in_child(lambda: _bootstrap(configuration))
        first_run = msgspec.json.decode(made) if made else None
        if first_run is not None:
            _show_once(first_run)
        supervisor.roles += extra()
        supervisor.start_all()
        _announce(configuration, supervisor, first_run)
        supervisor.watch()
    except StartFailed as error:
        _tell(f"{error}")
        return 1
    finally:
        supervisor.stop_all()
    return 0


class Supervisor:
    """Forks, watches and stops the roles."""

    def __init__(self, roles: list[Role], configuration: Configuration) -> None:
        self.roles = roles
        self._configuration = configuration
        self._stopping = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def start_all(self) -> None:
        """Start each role and wait until it is ready; raises StartFailed."""
        for role in self.roles:
            self._fork(role, wait=True)

    def watch(self) -> None:
        """Start again what dies, with growing pauses, until a signal asks to stop."""
        while not self._stopping:
            try:
                pid, status = os.wait()
            except InterruptedError:
                continue
            except ChildProcessError:
                return
            role = next((role for role in self.roles if role.pid == pid), None)
            if role is not None:
                role.pid = 0
                self._restart(role, os.waitstatus_to_exitcode(status))

    def stop_all(self) -> None:
        """Ask every role to drain and wait for it; what outlives the drain by far is killed."""
        self._stopping = True
        for role in self.roles:
            _signal(role, signal.SIGTERM)
        end = time.monotonic() + self._configuration.drain_seconds + _KILL_AFTER_DRAIN_SECONDS
        for role in self.roles:
            while role.pid and time.monotonic() < end:
                if os.waitpid(role.pid, os.WNOHANG)[0]:
                    role.pid = 0
                else:
                    time.sleep(0.02)
            if role.pid:
                _signal(role, signal.SIGKILL)
                os.waitpid(role.pid, 0)
                role.pid = 0
            _close(role)

    def _restart(self, role: Role, code: int) -> None:
        if self._stopping:
            return
        if time.monotonic() - role.started > _STEADY_SECONDS:
            role.failures = 0
        pause = _RESTART_SECONDS[min(role.failures, len(_RESTART_SECONDS) - 1)]
        role.failures += 1
        _tell(f"{role.name} ended with {code}; starting it again in {pause:g} s")
        end = time.monotonic() + pause
        while time.monotonic() < end and not self._stopping:
            time.sleep(0.05)
        if not self._stopping:
            self._fork(role, wait=False)

    def _fork(self, role: Role, *, wait: bool) -> None:
        reader, writer = os.pipe()
        _close(role)
        parent, role.alive = os.pipe()
        role.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            for other in self.roles:
                _close(other)
            _run_child(role, self._with_ports_in_use(), parent, writer)
        os.close(writer)
        os.close(parent)
        role.pid = pid
        if wait:
            self._await_ready(role, reader)
        else:
            os.close(reader)  # the port stays as it was: a child that cannot have it ends, and is started again

    def _with_ports_in_use(self) -> Configuration:
        """Where any free port was asked for, the one that was found: for the others to know and to have it again."""
        ports = {role.name: role.port for role in self.roles if role.port}
        return msgspec.structs.replace(
            self._configuration,
            proxy_port=ports.get("proxy", self._configuration.proxy_port),
            console_port=ports.get("console", self._configuration.console_port),
        )

    def _await_ready(self, role: Role, reader: int) -> None:
        """The child writes its port once it listens, or why it cannot, and closes the pipe."""
        message = _read_all(reader, _READY_SECONDS)
        if message.isdigit():
            role.port = int(message)
            return
        if self._stopping:
            raise StartFailed("stopped before it was up")
        raise StartFailed(f"{role.name} did not start: {message.decode() or 'see the messages above'}")

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        # os.wait() would go on after this handler (PEP 475); a child that ends is what makes it return.
        for role in self.roles:
            _signal(role, signal.SIGTERM)


def _run_child(role: Role, configuration: Configuration, alive: int, writer: int) -> None:
    """Never returns."""
    import setproctitle

    setproctitle.setproctitle(f"watchllm {role.name}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    code = 1
    ready = False

    def on_ready(port: int) -> None:
        nonlocal ready
        ready = True
        try:
            os.write(writer, str(port).encode())
        except BrokenPipeError:
            pass  # A child that was started again: nobody waits for it.
        os.close(writer)

    try:
        code = role.run(configuration, alive, on_ready)
    except KeyboardInterrupt:
        code = 0
    except OSError as error:
        if ready:
            raise
        os.write(writer, f"{error.strerror or error}; choose another port or stop what holds it".encode())
    except BaseException:  # noqa: BLE001  (this frame is the child's last: it tells, and ends the process)
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` returns, run in a child whose heavy imports end with it.

    Raises StartFailed with the message of what `work` raised.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            _write_all(writer, work())
            code = 0
        except Exception as error:  # noqa: BLE001  (told to the parent, which raises)
            from watchllm.compose.errors import FAILURES, WRONG_USAGE

            if not isinstance(error, (*FAILURES, *WRONG_USAGE)):
                import traceback

                traceback.print_exc()
            _write_all(writer, str(error).encode())
        finally:
            os._exit(code)
    os.close(writer)
    message = _read_all(reader, _BOOTSTRAP_SECONDS)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise StartFailed(message.decode())
    return message


def _bootstrap(configuration: Configuration) -> bytes:
    """Migrate and publish; on the first run also make what is shown once (JSON of FirstRun, else empty)."""
    from watchllm.compose.control import bootstrap

    made = bootstrap(configuration)
    return b"" if made is None else msgspec.json.encode(made)


def _run_proxy(configuration: Configuration, parent: int, ready: Callable[[int], None]) -> int:
    return proxy_process.run_proxy(configuration, parent=parent, on_ready=ready)


def _run_console(configuration: Configuration, parent: int, ready: Callable[[int], None]) -> int:
    from watchllm.compose.console import run_console

    return run_console(configuration, parent=parent, on_ready=ready)


def _run_recorder(configuration: Configuration, parent: int, ready: Callable[[int], None]) -> int:
    from watchllm.compose.recorder import run_recorder

    return run_recorder(configuration, parent=parent, on_ready=ready)


def _show_once(first_run: dict[str, str]) -> None:
    """Tell what nobody can look up later, before anything can fail."""
    _say(
        "Shown once; keep it:",
        f"  console sign-in  {first_run['email']}  {first_run['password']}",
        f"  project key      {first_run['key']}",
        "",
    )


def _announce(configuration: Configuration, supervisor: Supervisor, first_run: dict[str, str] | None) -> None:
    """Say where everything is, and on the first run how to try it."""
    ports = {role.name: role.port for role in supervisor.roles}
    scheme = "https" if configuration.tls_cert else "http"
    proxy = f"{scheme}://{_reachable(configuration.host)}:{ports['proxy']}"
    _say(f"proxy    {proxy}/v1")
    if "console" in ports:
        _say(f"console  {scheme}://{_reachable(configuration.host)}:{ports['console']}")
    if first_run is not None:
        model = _FIRST_MODELS.get(first_run["provider"], "sim/echo")
        _say(
            "",
            "Try it, twice; the second answer comes from the cache (X-WatchLLM-Cache: HIT):",
            "",
            _curl_line(proxy, first_run["key"], model),
            "",
        )


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def _curl_line(proxy: str, key: str, model: str) -> str:
    body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Hello, WatchLLM"}]}).decode()
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return f"curl -i {proxy}/v1/chat/completions {headers} -d '{body}'"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _read_all(reader: int, seconds: float) -> bytes:
    """What a child writes into its pipe until it closes it, or until the time is over."""
    import select

    message = b""
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            if select.select([reader], [], [], left)[0]:
                piece = os.read(reader, _READ_SIZE)
                if not piece:
                    break
                message += piece
    finally:
        os.close(reader)
    return message


def _tell(message: str) -> None:
    sys.stderr.write(f"watchllm up: {message}\n")
    sys.stderr.flush()


def _write_all(writer: int, message: bytes) -> None:
    while message:
        message = message[os.write(writer, message) :]


def _close(role: Role) -> None:
    if role.alive >= 0:
        os.close(role.alive)
        role.alive = -1


def _signal(role: Role, number: signal.Signals) -> None:
    if role.pid:
        try:
            os.kill(role.pid, number)
        except ProcessLookupError:
            role.pid = 0
