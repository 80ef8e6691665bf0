"""Starts `watchllm proxy` and `watchllm up` from plain flags. Whatever is not plain (`--help`, a typing error) is left
to the command-line library, which explains it."""

import os
import sys

from watchllm.configuration import Configuration, ConfigurationError, load

# Flag: (setting, whether it takes a number). `--no-console` takes nothing.
_FLAGS = {
    "--home": ("home", False),
    "--host": ("host", False),
    "--proxy-port": ("proxy_port", True),
    "--console-port": ("console_port", True),
    "--workers": ("workers", True),
}
_OF_PROXY = ("--home", "--host", "--proxy-port", "--workers")


def start(command: str, arguments: list[str]) -> int | None:
    """Run the command; its exit code, or None when the arguments need the command-line library."""
    flags = plain_flags(arguments, _OF_PROXY if command == "proxy" else (*_FLAGS, "--no-console"))
    if flags is None:
        return None
    workers = flags.pop("workers", 1)
    console = not flags.pop("no_console", False)
    return run(command, flags, int(workers or 1), console=console)


def run(command: str, flags: dict[str, str | int | None], workers: int, *, console: bool) -> int:
    """Run `proxy`, `up` or `demo` with these settings; the exit code. Errors of the operator's are told on stderr."""
    try:
        configuration = _configured(flags, workers)

        def reload() -> Configuration:
            return _configured(flags, workers)

        if command == "demo":
            from watchllm.compose.demo import run_demo

            return run_demo(configuration, console=console)
        if command == "proxy" and workers == 1:
            from watchllm.compose.proxy import run_proxy

            scheme = "https" if configuration.tls_cert else "http"
            return run_proxy(
                configuration,
                on_ready=lambda port: print(f"proxy  {scheme}://{configuration.host}:{port}", file=sys.stderr),
            )
        from watchllm.compose.up import run_proxies, run_up

        if command == "proxy":
            return run_proxies(configuration, workers, reload)
        return run_up(configuration, console=console, workers=workers, reload=reload)
    except ConfigurationError as error:
        print(f"watchllm {command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"watchllm {command}: cannot listen: {error.strerror or error}. Choose another port.", file=sys.stderr)
        return 1
    except Exception as error:
        from watchllm.compose.errors import FAILURES

        if not isinstance(error, FAILURES):
            raise
        print(f"watchllm {command}: {error}", file=sys.stderr)
        return 1


def _configured(flags: dict[str, str | int | None], workers: int) -> Configuration:
    """Raises ConfigurationError."""
    configuration = load(flags, os.environ)
    if not 1 <= workers <= _MOST_WORKERS:
        raise ConfigurationError(f"--workers takes 1 to {_MOST_WORKERS}")
    if workers > 1 and configuration.redis_url is None:
        raise ConfigurationError(_NEEDS_REDIS)
    if workers > 1 and configuration.admin_addr is not None:
        raise ConfigurationError(_NEEDS_SOCKETS)
    return configuration


def plain_flags(arguments: list[str], known: tuple[str, ...]) -> dict[str, str | int | None] | None:
    """The settings that `--flag value` and `--flag=value` give; None when anything else is there."""
    flags: dict[str, str | int | None] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == "--no-console" and name in known and not equals:
            flags["no_console"] = 1
            continue
        if name not in known:
            return None
        if not equals:
            value = next(rest, "")
        setting, is_number = _FLAGS[name]
        if not value or (is_number and not value.isdigit()):
            return None
        flags[setting] = int(value) if is_number else value
    return flags


_MOST_WORKERS = 64
_NEEDS_REDIS = (
    "without WATCHLLM_REDIS_URL there is one proxy process for each home: leave --workers out, or set it. Limits, "
    "answers and calls under way are shared there"
)
_NEEDS_SOCKETS = (
    "several workers cannot share one WATCHLLM_ADMIN_ADDR: leave it out (each has a socket of its own in the home), or "
    "run one worker for each address"
)
