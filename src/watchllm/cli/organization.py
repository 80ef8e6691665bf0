"""`watchllm organization`: create, list, show, set."""

import typer

from watchllm.cli.output import JSON, print_fields, print_json, print_rows, warn
from watchllm.cli.session import control_plane
from watchllm.cli.settings import SETTINGS, changes_of
from watchllm.control import described

app = typer.Typer(no_args_is_help=True, help="Organizations: the unit of billing, each with a plan.")
_ID = typer.Argument(help="The organization's id, org_….", metavar="ID")


@app.command()
def create(
    name: str = typer.Argument(metavar="NAME"),
    plan: str | None = typer.Option(None, help="A plan of `watchllm plan list`. Default: self-hosted."),
    as_json: bool = JSON,
) -> None:
    """Make an organization: projects and tokens are made in it with --organization ID."""
    with control_plane() as plane:
        organization = described.organization(plane.create_organization(name, {} if plan is None else {"plan": plan}))
    if as_json:
        print_json(organization)
    else:
        typer.echo(organization["id"])


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List all organizations."""
    with control_plane() as plane:
        found = [described.organization(organization) for organization in plane.all_organizations()]
    if as_json:
        print_json(found)
    else:
        print_rows(found, ("id", "name", "plan", "created_at"), nothing="no organization yet; `watchllm up` makes one")


@app.command()
def show(organization_id: str = _ID, as_json: bool = JSON) -> None:
    """Show an organization with its plan and the limits of its own."""
    with control_plane() as plane:
        organization = described.organization(plane.organization(organization_id))
    if as_json:
        print_json(organization)
    else:
        limits = organization.pop("limits")
        print_fields(organization | limits)


@app.command("set")
def set_(organization_id: str = _ID, settings: list[str] = SETTINGS, as_json: bool = JSON) -> None:
    """Change an organization's plan, its limits, which go before the plan's, or its overage_cap_usd."""
    from watchllm.control.organizations import parse_changes

    changes = changes_of(settings, parse_changes)
    with control_plane() as plane:
        organization = plane.set_organization(organization_id, changes)
        warn(plane.warnings(changes, organization_id=organization_id))
    if as_json:
        print_json(described.organization(organization))
