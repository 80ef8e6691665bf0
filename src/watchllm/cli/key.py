"""`watchllm key`: create, list, show, set, revoke."""

import time
from typing import TYPE_CHECKING, cast

import typer

from watchllm.cli.expiry import EXPIRES, expires_at_of
from watchllm.cli.output import JSON, print_fields, print_json, print_rows, warn
from watchllm.cli.session import control_plane
from watchllm.cli.settings import LIMITS_AT_FIRST, SETTINGS, changes_of
from watchllm.control import described
from watchllm.control.errors import PublicationFailed
from watchllm.domain.limits import parse_limits

if TYPE_CHECKING:
    from watchllm.control.keys import NewKey

app = typer.Typer(no_args_is_help=True, help="Project keys: what clients present.")
_ID = typer.Argument(metavar="ID", help="The key's id, key_….")


@app.command()
def create(
    project: str = typer.Option(help="The project's id.", metavar="ID"),
    test: bool = typer.Option(False, "--test", help="A key that reaches only the simulated provider."),
    name: str = typer.Option("", help="A name to know it by."),
    scope: list[str] = typer.Option(["inference"], help="inference, cache:write; repeated or separated by commas."),
    expires: str = EXPIRES,
    settings: list[str] | None = LIMITS_AT_FIRST,
    as_json: bool = JSON,
) -> None:
    """Make a key, with limits of its own where some are given. It is shown now and never again."""
    scopes = [part.strip() for text in scope for part in text.split(",") if part.strip()]
    expires_at = expires_at_of(expires)
    limits = changes_of(settings or [], parse_limits)
    with control_plane() as plane:
        warn(plane.warnings(limits, project_id=project))
        try:
            made = plane.create_key(project, name=name, test=test, scopes=scopes, expires_at=expires_at, limits=limits)
        except PublicationFailed as error:
            # It is saved and will be in force: this is the only sight of it, whatever else is wrong.
            unpublished = cast("NewKey", error.made)
            _show_new(unpublished, as_json, published=False)
            raise PublicationFailed(
                f"the key {unpublished.record.id} exists and is shown above; it is not published yet, so don't make "
                f"another: {error}"
            ) from error
    _show_new(made, as_json, published=True)


@app.command("list")
def list_(
    project: str | None = typer.Option(None, help="Only this project's.", metavar="ID"), as_json: bool = JSON
) -> None:
    """List keys, revoked ones too."""
    with control_plane() as plane:
        keys = [described.key(key) for key in plane.keys(project)]
    if as_json:
        print_json(keys)
    else:
        columns = ("id", "prefix", "name", "project_id", "scopes", "test", "created_at", "expires_at", "revoked_at")
        print_rows(keys, columns, nothing="no key yet; `watchllm key create --project ID`")


@app.command()
def show(key_id: str = _ID, as_json: bool = JSON) -> None:
    """Show a key with the limits of its own."""
    with control_plane() as plane:
        key = described.key(plane.key(key_id))
    if as_json:
        print_json(key)
    else:
        limits = key.pop("limits")
        print_fields(key | limits)


@app.command("set")
def set_(key_id: str = _ID, settings: list[str] = SETTINGS, as_json: bool = JSON) -> None:
    """Change the limits of a key, which hold beside its project's, or its name, scopes or expires (90d, or a date)."""
    from watchllm.control.keys import parse_changes

    changes = changes_of(settings, lambda pairs: parse_changes(pairs, time.time()))
    with control_plane() as plane:
        key = plane.set_key(key_id, changes)
        warn(plane.warnings(changes, project_id=key.project_id))
    if as_json:
        print_json(described.key(key))


@app.command()
def revoke(key_id: str = _ID, as_json: bool = JSON) -> None:
    """Put a key out of force, at once and for good."""
    with control_plane() as plane:
        key = plane.revoke_key(key_id)
    if as_json:
        print_json(described.key(key))


def _show_new(made: "NewKey", as_json: bool, *, published: bool) -> None:
    if as_json:
        print_json(described.new_key(made, published=published))
    else:
        typer.echo("Keep it safe: it is not shown again.", err=True)
        typer.echo(made.secret)
