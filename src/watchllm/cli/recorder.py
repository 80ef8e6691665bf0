"""`watchllm recorder`: usage from this host's journals into the database; one beside the proxies of each host."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("recorder")(recorder)


def recorder(
    home: Annotated[str | None, typer.Option("--home", help="Folder of all embedded state (WATCHLLM_HOME).")] = None,
    outlive_proxies: Annotated[
        bool,
        typer.Option(
            "--outlive-proxies",
            help="Told to stop, go on until the proxies of this home have ended (for a container beside theirs).",
        ),
    ] = False,
) -> None:
    """Bring usage from this host's journals into the database."""
    import os

    import setproctitle

    from watchllm.compose.recorder import run_recorder
    from watchllm.configuration import load

    configuration = load({"home": home}, os.environ)
    setproctitle.setproctitle("watchllm recorder")
    raise typer.Exit(
        run_recorder(
            configuration,
            on_ready=lambda _: typer.echo(f"recorder  {configuration.home / 'journal'}", err=True),
            outlive_proxies=outlive_proxies,
        )
    )
