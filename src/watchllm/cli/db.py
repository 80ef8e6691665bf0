"""`watchllm db`: forward-only migrations, for those who run them apart from the start, and the move to PostgreSQL."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchllm.cli.output import JSON, print_json
from watchllm.cli.session import configuration

if TYPE_CHECKING:
    from watchllm.control.first_run import FirstRun

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


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
    take_redis: Annotated[
        bool,
        typer.Option(
            "--take-redis",
            help="Publish in the place of the installation whose settings are in Redis: its keys are then unknown.",
        ),
    ] = False,
) -> None:
    """Bring the schema up to date and publish to the proxies; harmless when all is up to date."""
    from watchllm.compose.control import bootstrap, upgrade_schema

    upgraded, version = upgrade_schema(configuration(), take_redis=take_redis)
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


@app.command()
def move(
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="sqlite:///FILE; default: the home's.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="postgresql://…; default: WATCHLLM_DATABASE_URL.")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Move everything from SQLite into an empty PostgreSQL: all of it, or nothing.

    Stop `watchllm up` first. A password given by WATCHLLM_DATABASE_URL shows in no list of processes.
    """
    from watchllm.compose.database import is_postgres
    from watchllm.compose.move import move as move_all
    from watchllm.configuration import home_database_url

    settings = configuration()
    configured = settings.database_url
    own = home_database_url(settings.directory) if is_postgres(configured) else configured
    to = target or settings.database_direct_url or (configured if is_postgres(configured) else None)
    if to is None:
        raise typer.BadParameter("where to? postgresql://USER:PASSWORD@HOST:PORT/NAME", param_hint="--to")

    def tell(table: str, rows: int) -> None:
        typer.echo(f"{table}: {rows} rows", err=True)

    counts = move_all(settings, source or own, to, tell)
    if as_json:
        print_json({"rows": counts})
        return
    typer.echo("moved; start WatchLLM with WATCHLLM_DATABASE_URL set to the new database", err=True)
    if settings.secret_key is None:
        typer.echo(
            f"and WATCHLLM_SECRET_KEY to what {settings.home / 'secret.key'} holds, on every host: "
            "provider keys stay sealed under it",
            err=True,
        )
