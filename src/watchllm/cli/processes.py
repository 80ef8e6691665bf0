"""`watchllm up`, `proxy` and `demo` as the command-line library knows them: for `--help` and for wrong usage.

Plain calls of `up` and `proxy` never come here (see fast_start.py).
"""

from typing import Annotated

import typer

from watchllm.cli.fast_start import run

Home = Annotated[str | None, typer.Option("--home", help="Folder of all embedded state (WATCHLLM_HOME).")]
Host = Annotated[str | None, typer.Option("--host", help="Address to listen on (WATCHLLM_HOST).")]
ProxyPort = Annotated[
    int | None, typer.Option("--proxy-port", min=0, max=65535, help="Default 8787; 0 = any free one.")
]
ConsolePort = Annotated[
    int | None, typer.Option("--console-port", min=0, max=65535, help="Default 3000; 0 = any free one.")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Proxy processes; several need WATCHLLM_REDIS_URL.")]
NoConsole = Annotated[bool, typer.Option("--no-console", help="Leave the console out.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("up")(up)
    app.command("proxy")(proxy)
    app.command("demo")(demo)


def up(
    proxy_port: ProxyPort = None,
    console_port: ConsolePort = None,
    workers: Workers = 1,
    no_console: NoConsole = False,
    host: Host = None,
    home: Home = None,
) -> None:
    """Run proxy, console and recorder on this machine, and keep them running."""
    flags = {"proxy_port": proxy_port, "console_port": console_port, "host": host, "home": home}
    raise typer.Exit(run("up", flags, workers, console=not no_console))


def proxy(proxy_port: ProxyPort = None, workers: Workers = 1, host: Host = None, home: Home = None) -> None:
    """Run the proxy alone. Usage waits in its journal for a `watchllm recorder` on the same home."""
    raise typer.Exit(run("proxy", {"proxy_port": proxy_port, "host": host, "home": home}, workers, console=False))


def demo(
    proxy_port: ProxyPort = None,
    console_port: ConsolePort = None,
    no_console: NoConsole = False,
    host: Host = None,
    home: Home = None,
) -> None:
    """Run everything with a simulated provider and traffic, to look around."""
    flags = {"proxy_port": proxy_port, "console_port": console_port, "host": host, "home": home}
    raise typer.Exit(run("demo", flags, 1, console=not no_console))
