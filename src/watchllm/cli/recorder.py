"""`watchllm recorder`: usage from this host's journals into the database; one beside the proxies of each host."""

import typer

from watchllm.cli.session import configuration


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("recorder")(recorder)


def recorder() -> None:
    """Bring usage from this host's journals into the database."""
    import setproctitle

    from watchllm.compose.recorder import run_recorder

    setproctitle.setproctitle("watchllm recorder")
    raise typer.Exit(run_recorder(configuration()))
