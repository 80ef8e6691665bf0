"""`watchllm token`: create, list, revoke."""

import typer

from watchllm.cli.expiry import EXPIRES, expires_at_of
from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import control_plane
from watchllm.control import described

app = typer.Typer(no_args_is_help=True, help="Management tokens: what scripts present to the console's API.")
_COLUMNS = ("id", "prefix", "name", "role", "organization_id", "created_at", "expires_at", "revoked_at")


@app.command()
def create(
    name: str = typer.Option("", help="A name to know it by, here and in the audit log."),
    role: str = typer.Option("admin", help="admin, or viewer, which changes nothing."),
    expires: str = EXPIRES,
    organization: str | None = typer.Option(None, metavar="ID", help="Whose it is. Default: the first one's."),
    as_json: bool = JSON,
) -> None:
    """Make a token. It is shown now and never again."""
    with control_plane() as plane:
        made = plane.create_token(organization, name=name, role=role, expires_at=expires_at_of(expires))
    if as_json:
        print_json(described.new_token(made))
    else:
        typer.echo("Keep it safe: it is not shown again.", err=True)
        typer.echo(made.secret)


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List tokens, revoked ones too."""
    with control_plane() as plane:
        tokens = [described.token(token) for token in plane.tokens()]
    if as_json:
        print_json(tokens)
    else:
        print_rows(tokens, _COLUMNS, nothing="no token yet; `watchllm token create`")


@app.command()
def revoke(token_id: str = typer.Argument(metavar="ID", help="The token's id, tok_…."), as_json: bool = JSON) -> None:
    """Put a token out of force, at once and for good."""
    with control_plane() as plane:
        token = plane.revoke_token(token_id)
    if as_json:
        print_json(described.token(token))
