"""Starts `watchllm proxy` and `watchllm up` from plain flags. Whatever is not plain (`--help`, a typing error) is left
to the command-line library, which explains it."""

import os
import sys

from watchllm.configuration import ConfigurationError, load

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
        configuration = load(flags, os.environ)
        if workers != 1:
            raise ConfigurationError(_ONE_WORKER)
        if command == "demo":
            from watchllm.compose.demo import run_demo

            return run_demo(configuration, console=console)
        if command == "proxy":
            from watchllm.compose.proxy import run_proxy

            return run_proxy(configuration)
        from watchllm.compose.supervisor import run_up

        return run_up(configuration, console=console)
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


_ONE_WORKER = (
    "this version runs one proxy process for each home, with WATCHLLM_REDIS_URL or without it: leave --workers out. "
    "Further processes need a home and a port of their own"
)
