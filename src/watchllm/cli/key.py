"""`watchllm key`: create, list, show, set, revoke."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from watchllm.cli.output import JSON, print_fields, print_json, print_rows, timestamp
from watchllm.cli.session import control_plane
from watchllm.cli.settings import SETTINGS, changes_of
from watchllm.domain.limits import parse_limits

if TYPE_CHECKING:
    from watchllm.control.keys import Key

app = typer.Typer(no_args_is_help=True, help="Project keys: what clients present.")
_ID = typer.Argument(metavar="ID", help="The key's id, key_….")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command()
def create(
    project: str = typer.Option(help="The project's id.", metavar="ID"),
    test: bool = typer.Option(False, "--test", help="A key that reaches only the simulated provider."),
    name: str = typer.Option("", help="A name to know it by."),
    scope: list[str] = typer.Option(["inference"], help="inference, cache:write; repeated or separated by commas."),
    expires: str = typer.Option("", help="When it ends: 90d, 12h, 30m, or 2030-01-31[T12:00:00Z]. Default: never."),
    as_json: bool = JSON,
) -> None:
    """Make a key. It is shown now and never again."""
    scopes = [part.strip() for text in scope for part in text.split(",") if part.strip()]
    expires_at = _expiry(expires, time.time())
    with control_plane() as plane:
        made = plane.create_key(project, name=name, test=test, scopes=scopes, expires_at=expires_at)
    if as_json:
        print_json({"id": made.record.id, "key": made.secret} | _as_data(made.record))
    else:
        typer.echo("Keep it safe: it is not shown again.", err=True)
        typer.echo(made.secret)


@app.command("list")
def list_(
    project: str | None = typer.Option(None, help="Only this project's.", metavar="ID"), as_json: bool = JSON
) -> None:
    """List keys, revoked ones too."""
    with control_plane() as plane:
        keys = [_as_data(key) for key in plane.keys(project)]
    if as_json:
        print_json(keys)
    else:
        columns = ("id", "prefix", "name", "project_id", "scopes", "test", "created_at", "expires_at", "revoked_at")
        print_rows(keys, columns, nothing="no key yet; `watchllm key create --project ID`")


@app.command()
def show(key_id: str = _ID, as_json: bool = JSON) -> None:
    """Show a key with the limits of its own."""
    with control_plane() as plane:
        key = _as_data(plane.key(key_id))
    if as_json:
        print_json(key)
    else:
        limits = key.pop("limits")
        print_fields(key | limits)


@app.command("set")
def set_(key_id: str = _ID, settings: list[str] = SETTINGS, as_json: bool = JSON) -> None:
    """Change the limits of a key, which hold beside its project's."""
    changes = changes_of(settings, parse_limits)
    with control_plane() as plane:
        key = plane.set_key(key_id, changes)
    if as_json:
        print_json(_as_data(key))


@app.command()
def revoke(key_id: str = _ID, as_json: bool = JSON) -> None:
    """Put a key out of force, at once and for good."""
    with control_plane() as plane:
        key = plane.revoke_key(key_id)
    if as_json:
        print_json(_as_data(key))


def _expiry(text: str, now: float) -> int:
    """Epoch seconds, 0 = never."""
    if not text:
        return 0
    if text[-1] in _UNITS and text[:-1].isdecimal() and len(text) < 10:
        return int(now) + int(text[:-1]) * _UNITS[text[-1]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "expected 90d, 12h, 30m or a date such as 2030-01-31"
        raise typer.BadParameter(f"{text!r}: {hint}", param_hint="--expires") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _as_data(key: "Key") -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "project_id": key.project_id,
        "scopes": key.scopes,
        "test": key.test,
        "created_at": timestamp(key.created_ms),
        "expires_at": timestamp(key.expires_at * 1000) if key.expires_at else None,
        "revoked_at": timestamp(key.revoked_ms),
        "limits": msgspec.structs.asdict(key.limits),
    }
