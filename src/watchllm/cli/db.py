"""`watchllm db upgrade`: forward-only migrations, for those who run them apart from the start."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchllm.cli.output import JSON, print_json
from watchllm.cli.session import configuration

if TYPE_CHECKING:
    from watchllm.control.first_run import FirstRun

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


@app.callback()
def group() -> None:
    """Without it, typer would make the only command the whole group."""


@app.command()
def upgrade(
    as_json: bool = JSON,
    first_run: Annotated[
        bool,
        typer.Option(
            "--first-run",
            help="Where none ever was, also make an owner, a project and a key, as `up` does, and show them once.",
        ),
    ] = False,
) -> None:
    """Bring the schema up to date and publish to this host's proxies; harmless when all is up to date."""
    from watchllm.compose.control import bootstrap, upgrade_schema

    upgraded, version = upgrade_schema(configuration())
    document: dict[str, Any] = {"schema": version, "upgraded": upgraded}
    if not as_json:
        typer.echo(f"schema {version}: {'upgraded' if upgraded else 'was up to date'}", err=True)
    if first_run:
        made = bootstrap(configuration())
        document["first_run"] = None if made is None else {"email": made.email, "password": made.password}
        if made is not None:
            document["first_run"] |= {"project_id": made.project_id, "key": made.key}
        if not as_json:
            typer.echo(_shown(made))
    if as_json:
        print_json(document)


def _shown(made: "FirstRun | None") -> str:
    if made is None:
        return "There was a first run already; what it made is shown once only."
    return f"console sign-in  {made.email}  {made.password}\nproject key      {made.key}"
