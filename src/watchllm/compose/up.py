"""`watchllm up`: bootstrap, then proxies, console and recorder, each forked and kept alive; `watchllm proxy` with
several workers: proxies only. What is told to whoever starts them is here, how they are kept is in `supervisor`."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from watchllm.compose import proxy as proxy_process
from watchllm.compose.children import Given, StartFailed, in_child
from watchllm.compose.supervisor import Role, Supervisor
from watchllm.configuration import Configuration, ConfigurationError
from watchllm.wire.listening import bind_for_workers

Reload = Callable[[], Configuration]

# What the first curl line asks, by the provider that answers it.
_FIRST_MODELS = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "groq": "groq/llama-3.1-8b-instant",
    "openrouter": "openrouter/openai/gpt-4o-mini",
}


def no_more() -> list[Role]:
    return []


def run_up(
    configuration: Configuration,
    *,
    console: bool,
    workers: int = 1,
    reload: Reload | None = None,
    extra: Callable[[], list[Role]] = no_more,
) -> int:
    """Bring everything up and keep it up until SIGTERM or SIGINT; the exit code.

    On SIGHUP the configuration is read by `reload` and every process replaced, one after the other. `extra` is asked
    for more roles once the database is ready; they start last.
    """
    supervisor = _supervisor("up", configuration, reload, _check_database)
    try:
        made = in_child(lambda: _bootstrap(configuration))
        first_run = msgspec.json.decode(made) if made else None
        if first_run is not None:
            _show_once(first_run)
        roles = _proxies(supervisor, workers)
        if console:
            roles.append(_console(supervisor))
        roles.append(Role("recorder", _run_recorder, retire=proxy_process.RETIRE))
        _start(supervisor, [*roles, *extra()])
        _announce(supervisor.configuration, first_run, console=console)
        supervisor.watch()
    except StartFailed as error:
        _tell("up", str(error))
        return 1
    finally:
        supervisor.stop_all()
    return 0


def run_proxies(configuration: Configuration, workers: int, reload: Reload) -> int:
    """Keep `workers` proxies up until SIGTERM or SIGINT; the exit code. SIGHUP as for `run_up`."""
    supervisor = _supervisor("proxy", configuration, reload, _check_recorder)
    try:
        _start(supervisor, _proxies(supervisor, workers))
        sys.stderr.write(f"proxy  {_url(supervisor.configuration, supervisor.configuration.proxy_port)}\n")
        supervisor.watch()
    except StartFailed as error:
        _tell("proxy", str(error))
        return 1
    finally:
        supervisor.stop_all()
    return 0


def _supervisor(
    name: str, configuration: Configuration, reload: Reload | None, check: Callable[[Configuration], None]
) -> Supervisor:
    import setproctitle

    setproctitle.setproctitle(f"watchllm {name}" if name == "up" else f"watchllm {name} (supervisor)")
    # A start runs without collections. From here on there are some; what is loaded by now is left out of them, and so
    # stays shared with the children.
    gc.freeze()
    gc.enable()
    supervisor = Supervisor(name, configuration)
    if reload is not None:
        supervisor.reload = lambda: _reloaded(supervisor.configuration, reload(), check)
    return supervisor


def _start(supervisor: Supervisor, roles: list[Role]) -> None:
    """Raises StartFailed."""
    supervisor.roles = roles  # All of them, before the first is forked: a child lets go of what is another one's.
    for role in roles:
        supervisor.start(role)


def _reloaded(current: Configuration, new: Configuration, check: Callable[[Configuration], None]) -> Configuration:
    """What is configured now, with the addresses that are listened on, `check` having nothing against it. Raises
    ConfigurationError."""
    if (new.redis_url is None) != (current.redis_url is None):
        raise ConfigurationError("whether there is a Redis can only change with a new start")
    check(new)
    return msgspec.structs.replace(
        new, host=current.host, proxy_port=current.proxy_port, console_port=current.console_port
    )


def _check_database(new: Configuration) -> None:
    """Without the database a new console does not start, and a new proxy has keys with quotas and budgets wait, which
    the one before serves. Raises ConfigurationError."""
    if new.database_url.startswith("sqlite:"):
        return

    def ask() -> bytes:
        from watchllm.compose.database import check_answers

        check_answers(new)
        return b""

    try:
        in_child(ask)
    except StartFailed as error:
        raise ConfigurationError(f"{error}; what runs goes on, ask again when the database answers") from None


def _check_recorder(new: Configuration) -> None:
    """The same for proxies alone, which do not know the database: the recorder of their home does. Raises
    ConfigurationError."""
    from watchllm.journal.status import recorder_status

    status = recorder_status(new.home / "journal")
    if new.redis_url is not None and status is not None and status.problem is not None:
        raise ConfigurationError(
            f"the recorder has a problem ({status.problem}), and new proxies would have keys with quotas and budgets "
            "wait; what runs goes on, ask again when the recorder is well"
        )


def _proxies(supervisor: Supervisor, workers: int) -> list[Role]:
    """Where any free port was asked for, the one that was found is configured from here on. Raises StartFailed."""
    configuration = supervisor.configuration
    given = _bind("proxy", configuration.host, configuration.proxy_port, workers)
    port = given[0][0].getsockname()[1]
    supervisor.configuration = msgspec.structs.replace(configuration, proxy_port=port)
    # Without Redis a proxy is alone on its home: the next one can only begin when it has ended.
    overlaps = configuration.redis_url is not None
    names = ["proxy"] if workers == 1 else [f"proxy {number}" for number in range(1, workers + 1)]
    return [
        Role(name, _run_proxy, sockets, retire=proxy_process.RETIRE, overlaps=overlaps, serves=True)
        for name, sockets in zip(names, given, strict=True)
    ]


def _console(supervisor: Supervisor) -> Role:
    """Raises StartFailed."""
    configuration = supervisor.configuration
    sockets = _bind("console", configuration.host, configuration.console_port, 1)[0]
    port = sockets[0].getsockname()[1]
    supervisor.configuration = msgspec.structs.replace(configuration, console_port=port)
    return Role("console", _run_console, sockets, retire=signal.SIGTERM, overlaps=True)


def _bind(name: str, host: str, port: int, workers: int) -> list[list[socket.socket]]:
    try:
        return bind_for_workers(host, port, workers)
    except OSError as error:
        problem = f"{error.strerror or error}; choose another port or stop what holds it"
        raise StartFailed(f"{name} did not start: {problem}") from None


def _bootstrap(configuration: Configuration) -> bytes:
    """Migrate and publish; on the first run also make what is shown once (JSON of FirstRun, else empty)."""
    from watchllm.compose.control import bootstrap

    made = bootstrap(configuration)
    return b"" if made is None else msgspec.json.encode(made)


def _run_proxy(given: Given) -> int:
    return proxy_process.run_proxy(
        given.configuration, parent=given.parent, on_ready=given.ready, sockets=given.sockets
    )


def _run_console(given: Given) -> int:
    from watchllm.compose.console import run_console

    return run_console(given.configuration, parent=given.parent, on_ready=given.ready, sockets=given.sockets)


def _run_recorder(given: Given) -> int:
    from watchllm.compose.recorder import run_recorder

    return run_recorder(given.configuration, parent=given.parent, on_ready=given.ready, outlive_proxies=True)


def _show_once(first_run: dict[str, str]) -> None:
    """Tell what nobody can look up later, before anything can fail."""
    _say(
        "Shown once; keep it:",
        f"  console sign-in  {first_run['email']}  {first_run['password']}",
        f"  project key      {first_run['key']}",
        "",
    )


def _announce(configuration: Configuration, first_run: dict[str, str] | None, *, console: bool) -> None:
    """Say where everything is, and on the first run how to try it."""
    proxy = _url(configuration, configuration.proxy_port)
    _say(f"proxy    {proxy}/v1")
    if console:
        _say(f"console  {_url(configuration, configuration.console_port)}")
    if first_run is not None:
        model = _FIRST_MODELS.get(first_run["provider"], "sim/echo")
        _say(
            "",
            "Try it, twice; the second answer comes from the cache (X-WatchLLM-Cache: HIT):",
            "",
            _curl_line(proxy, first_run["key"], model),
            "",
        )


def _url(configuration: Configuration, port: int) -> str:
    scheme = "https" if configuration.tls_cert else "http"
    return f"{scheme}://{_reachable(configuration.host)}:{port}"


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def _curl_line(proxy: str, key: str, model: str) -> str:
    body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Hello, WatchLLM"}]}).decode()
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return f"curl -i {proxy}/v1/chat/completions {headers} -d '{body}'"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _tell(name: str, message: str) -> None:
    sys.stderr.write(f"watchllm {name}: {message}\n")
    sys.stderr.flush()
