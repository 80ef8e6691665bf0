"""`watchllm project`: create, list, show, set."""

import typer

from watchllm.cli.output import JSON, print_fields, print_json, print_rows, warn
from watchllm.cli.session import control_plane
from watchllm.cli.settings import SETTINGS, changes_of
from watchllm.control import described
from watchllm.domain.settings import parse_settings

app = typer.Typer(no_args_is_help=True, help="Projects: the unit of isolation.")
_ID = typer.Argument(help="The project's id, prj_….", metavar="ID")


@app.command()
def create(
    name: str = typer.Argument(metavar="NAME"),
    organization: str | None = typer.Option(None, metavar="ID", help="Whose it is. Default: the first one's."),
    as_json: bool = JSON,
) -> None:
    """Make a project."""
    with control_plane() as plane:
        project = plane.create_project(name, organization_id=organization)
    if as_json:
        print_json(described.project(project))
    else:
        typer.echo(project.id)


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List all projects."""
    with control_plane() as plane:
        projects = [described.project(project) for project in plane.projects()]
    if as_json:
        print_json(projects)
    else:
        print_rows(projects, ("id", "name", "created_at"), nothing="no project yet; `watchllm project create NAME`")


@app.command()
def show(project_id: str = _ID, as_json: bool = JSON) -> None:
    """Show a project with all its settings."""
    with control_plane() as plane:
        project = described.project(plane.project(project_id))
    if as_json:
        print_json(project)
    else:
        settings = project.pop("settings")
        print_fields(project | settings)


@app.command("set")
def set_(
    project_id: str = _ID,
    settings: list[str] = SETTINGS,
    as_json: bool = JSON,
) -> None:
    """Change settings of a project."""
    changes = changes_of(settings, parse_settings)
    with control_plane() as plane:
        project = plane.set_project(project_id, changes)
        warn(plane.warnings(changes, project_id=project_id))
    if as_json:
        print_json(described.project(project))
