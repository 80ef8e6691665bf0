"""`watchllm db upgrade`: forward-only migrations, for those who run them apart from the start."""

import typer

from watchllm.cli.output import JSON, print_json
from watchllm.cli.session import configuration

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


@app.callback()
def group() -> None:
    """Without it, typer would make the only command the whole group."""


@app.command()
def upgrade(as_json: bool = JSON) -> None:
    """Bring the schema up to date and publish to this host's proxies; harmless when all is up to date."""
    from watchllm.compose.control import upgrade_schema

    upgraded, version = upgrade_schema(configuration())
    if as_json:
        print_json({"schema": version, "upgraded": upgraded})
    else:
        typer.echo(f"schema {version}: {'upgraded' if upgraded else 'was up to date'}", err=True)
