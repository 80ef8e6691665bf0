"""`watchllm doctor`: checks every configured store and provider, and says what to do."""

import msgspec
import typer

from watchllm.cli.output import JSON, print_json
from watchllm.cli.session import configuration

_SIGNS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED "}


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("doctor")(doctor)


def doctor(as_json: bool = JSON) -> None:
    """Check everything that this configuration depends on; exit 1 when something has failed."""
    from watchllm.compose.checks import FAILED
    from watchllm.compose.doctor import examine

    checks = []
    for check in examine(configuration()):
        checks.append(check)
        if not as_json:
            typer.echo(f"{_SIGNS[check.status]}  {check.name}: {check.detail}")
            if check.advice:
                typer.echo(f"         → {check.advice}")
    healthy = all(check.status != FAILED for check in checks)
    if as_json:
        print_json({"ok": healthy, "checks": [msgspec.structs.asdict(check) for check in checks]})
    if not healthy:
        raise typer.Exit(1)
