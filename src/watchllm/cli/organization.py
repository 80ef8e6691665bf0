"""`watchllm organization`: list, show, set."""

from typing import TYPE_CHECKING, Any

import msgspec
import typer

from watchllm.cli.output import JSON, print_fields, print_json, print_rows, timestamp
from watchllm.cli.session import control_plane
from watchllm.cli.settings import SETTINGS, changes_of

if TYPE_CHECKING:
    from watchllm.control.organizations import Organization

app = typer.Typer(no_args_is_help=True, help="Organizations: the unit of billing, each with a plan.")
_ID = typer.Argument(help="The organization's id, org_….", metavar="ID")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List all organizations."""
    with control_plane() as plane:
        found = [_as_data(organization) for organization in plane.all_organizations()]
    if as_json:
        print_json(found)
    else:
        print_rows(found, ("id", "name", "plan", "created_at"), nothing="no organization yet; `watchllm up` makes one")


@app.command()
def show(organization_id: str = _ID, as_json: bool = JSON) -> None:
    """Show an organization with its plan and the limits of its own."""
    with control_plane() as plane:
        organization = _as_data(plane.organization(organization_id))
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
    if as_json:
        print_json(_as_data(organization))


def _as_data(organization: "Organization") -> dict[str, Any]:
    return {
        "id": organization.id,
        "name": organization.name,
        "plan": organization.plan,
        "overage_cap_usd": organization.overage_cap_usd,
        "created_at": timestamp(organization.created_ms),
        "limits": msgspec.structs.asdict(organization.limits),
    }
