"""Projects: the unit of isolation, with their settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from watchllm.control.database import PROJECT, UnitOfWork
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.names import checked
from watchllm.control.tables import projects
from watchllm.domain import ids
from watchllm.domain.settings import ProjectSettings, with_changes

_settings = msgspec.json.Decoder(ProjectSettings)


class Project(msgspec.Struct, frozen=True):
    id: str
    organization_id: str
    name: str
    settings: ProjectSettings
    created_ms: int


def create(work: UnitOfWork, organization_id: str, name: str, settings: ProjectSettings) -> Project:
    """Raises Invalid for an empty or over-long name. Names need not be unique; ids are."""
    name = checked(name, "a project")
    project = Project(ids.new_id(ids.PROJECT), organization_id, name, settings, work.now_ms)
    work.connection.execute(
        insert(projects).values(
            id=project.id,
            organization_id=organization_id,
            name=name,
            settings=_encoded(settings),
            created_ms=work.now_ms,
        )
    )
    work.record("project.create", project.id, name=name, settings=msgspec.to_builtins(settings))
    work.publish(PROJECT, project.id)
    return project


def change_settings(work: UnitOfWork, project_id: str, changes: Mapping[str, Any]) -> Project:
    """Apply parsed settings. Raises NotFound."""
    project = get(work.connection, project_id)
    changed = msgspec.structs.replace(project, settings=with_changes(project.settings, changes))
    work.connection.execute(
        update(projects).where(projects.c.id == project_id).values(settings=_encoded(changed.settings))
    )
    work.record("project.set", project_id, **msgspec.to_builtins(dict(changes)))
    work.publish(PROJECT, project_id)
    return changed


def get(connection: Connection, project_id: str) -> Project:
    """Raises NotFound."""
    row = connection.execute(select(projects).where(projects.c.id == project_id)).first()
    if row is None:
        raise NotFound(f"no project has the id {project_id!r}; `watchllm project list` shows them")
    return _project(row)


def only(connection: Connection) -> Project:
    """The only project there is. Raises Invalid where there is none or several."""
    found = listed(connection)
    if len(found) != 1:
        raise Invalid(
            f"there are {len(found)} projects: say which with --project ID; `watchllm project list` shows them"
        )
    return found[0]


def listed(connection: Connection, only: Sequence[str] | None = None) -> list[Project]:
    """All projects, or those of the ids in `only`, oldest first."""
    query = select(projects).order_by(projects.c.created_ms, projects.c.id)
    if only is not None:
        query = query.where(projects.c.id.in_(only))
    return [_project(row) for row in connection.execute(query)]


def page(connection: Connection, organization_id: str, after: str | None, most: int) -> list[Project]:
    """At most `most` projects of an organization in the order of their ids, which is that of their creation, from the
    one behind the id `after` on, None = from the first."""
    query = select(projects).where(projects.c.organization_id == organization_id)
    if after is not None:
        query = query.where(projects.c.id > after)
    return [_project(row) for row in connection.execute(query.order_by(projects.c.id).limit(most))]


def count(connection: Connection, organization_id: str) -> int:
    """How many projects an organization has."""
    query = select(func.count()).select_from(projects).where(projects.c.organization_id == organization_id)
    return int(connection.scalar(query) or 0)


def _encoded(settings: ProjectSettings) -> str:
    return msgspec.json.encode(settings).decode()


def _project(row: Row[Any]) -> Project:
    return Project(row.id, row.organization_id, row.name, _settings.decode(row.settings), row.created_ms)
