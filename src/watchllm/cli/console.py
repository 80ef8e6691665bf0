"""`watchllm console`: the management web application as a process of its own."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("console")(console)


def console(
    console_port: Annotated[
        int | None, typer.Option("--console-port", min=0, max=65535, help="Default 3000; 0 = any free one.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on (WATCHLLM_HOST).")] = None,
    home: Annotated[str | None, typer.Option("--home", help="Folder of all embedded state (WATCHLLM_HOME).")] = None,
) -> None:
    """Run the console, which also publishes changes to the proxies."""
    import os

    import setproctitle

    from watchllm.compose.console import run_console
    from watchllm.configuration import load

    configuration = load({"console_port": console_port, "host": host, "home": home}, os.environ)
    setproctitle.setproctitle("watchllm console")
    scheme = "https" if configuration.tls_cert else "http"

    def announce(port: int) -> None:
        typer.echo(f"console  {scheme}://{configuration.host}:{port}", err=True)

    try:
        code = run_console(configuration, on_ready=announce)
    except OSError as error:
        typer.echo(f"watchllm console: cannot listen: {error.strerror or error}. Choose another port.", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(code)
