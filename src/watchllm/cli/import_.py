"""`watchllm import`: bring the configuration of another gateway over."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import control_plane

if TYPE_CHECKING:
    from watchllm.control.litellm import Imported

_MAX_BYTES = 1 << 20

app = typer.Typer(no_args_is_help=True, help="Bring the configuration of another gateway over.")


@app.callback()
def import_() -> None:
    """Bring the configuration of another gateway over."""


@app.command()
def litellm(
    file: Path = typer.Argument(metavar="config.yaml", help="The configuration of a LiteLLM proxy."),
    project: str | None = typer.Option(None, help="Into this project; the only one there is.", metavar="ID"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would come of it, and change nothing."),
    as_json: bool = JSON,
) -> None:
    """Bring models, keys, fallbacks and bounds of a LiteLLM proxy over, and say what could not be.

    Keys given as os.environ/NAME are read from this shell's environment now, and sealed.
    """
    text = _text(file)
    with control_plane() as plane:
        imported = plane.import_litellm(text, os.environ, project_id=project, dry_run=dry_run)
    if as_json:
        print_json(_as_data(imported))
    else:
        _print(imported)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise typer.BadParameter(f"{file} is no configuration: it is longer than {_MAX_BYTES} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8") from None


def _as_data(imported: "Imported") -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(imported)
    data["routes"] = [
        {
            "name": rule.name,
            "to": [{"model": model, "weight": weight} for model, weight in rule.choices],
            "fallbacks": list(rule.fallbacks),
            "retries": rule.retries,
            "try_timeout": rule.try_timeout,
        }
        for rule in imported.routes
    ]
    return data


def _print(imported: "Imported") -> None:
    data = _as_data(imported)
    for route in data["routes"]:
        route["to"] = [f"{choice['model']}={choice['weight']}" for choice in route["to"]]
    would = " that would be" if imported.dry_run else ""
    parts = (
        (f"Provider keys{would} added", data["provider_keys"], ("provider", "masked", "base_url", "existed")),
        ("Provider keys to add", data["keys_to_add"], ("provider", "variable", "command")),
        (f"Routes{would} set", data["routes"], ("name", "to", "fallbacks", "retries", "try_timeout")),
        ("Models that need no route", [{"name": name} for name in data["unchanged"]], ("name",)),
        ("Not brought over", data["not_imported"], ("path", "reason")),
    )
    typer.echo(f"Project {imported.project_id}{': nothing was changed' if imported.dry_run else ''}")
    for heading, rows, columns in parts:
        if rows:
            typer.echo(f"\n{heading}")
            print_rows(rows, columns, nothing="")
