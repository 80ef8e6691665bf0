"""`watchllm config show`: the effective configuration and where each value came from."""

import msgspec
import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import configuration

app = typer.Typer(no_args_is_help=True, help="The configuration of this shell.")


@app.callback()
def group() -> None:
    """Without it, typer would make the only command the whole group."""


@app.command()
def show(as_json: bool = JSON) -> None:
    """Show every setting, its origin, and its variable; secrets masked."""
    from watchllm.compose.described import described

    rows = [msgspec.structs.asdict(row) for row in described(configuration())]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("name", "value", "origin", "variable"), nothing="")
