"""The program: registers the nouns, and turns errors that are for the operator into a line on stderr and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from watchllm import __version__
from watchllm.cli import (
    audit,
    cache,
    config,
    console,
    db,
    doctor,
    eval_,
    explain,
    import_,
    key,
    logs,
    organization,
    plan,
    processes,
    project,
    provider_key,
    recorder,
    route,
    secret,
    sim,
    token,
    usage,
)

_FIRST = ("up", "demo", "proxy", "console", "recorder", "sim", "doctor")


class Program(TyperGroup):
    """The root of all commands; those that run something are listed first, as one needs them first."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            typer.echo(f"watchllm: {error}", err=True)
            raise typer.Exit(code) from None


app = typer.Typer(
    name="watchllm",
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"watchllm {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """An LLM gateway: cache, keys, limits and a record of every request."""


app.add_typer(project.app, name="project")
app.add_typer(key.app, name="key")
app.add_typer(organization.app, name="organization")
app.add_typer(token.app, name="token")
app.add_typer(plan.app, name="plan")
app.add_typer(provider_key.app, name="provider-key")
app.add_typer(route.app, name="route")
app.add_typer(audit.app, name="audit")
app.add_typer(secret.app, name="secret")
app.add_typer(cache.app, name="cache")
app.add_typer(import_.app, name="import")
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
app.add_typer(usage.app, name="usage")
app.add_typer(logs.app, name="logs")
recorder.register(app)
doctor.register(app)
eval_.register(app)
explain.register(app)
sim.register(app)
console.register(app)
processes.register(app)


def _exit_code(error: Exception) -> int | None:
    # Here, not above: it is needed only when something went wrong.
    from watchllm.compose.errors import FAILURES, WRONG_USAGE

    if isinstance(error, WRONG_USAGE):
        return 2
    return 1 if isinstance(error, FAILURES) else None
