"""Projects as proxies know them: settings, sealed provider keys and routes in one record."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from watchllm.control import organizations, projects, provider_keys, routes
from watchllm.control.plans import Plan
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord


def published(
    connection: Connection, plans: Mapping[str, Plan] | None, only: Sequence[str] | None = None
) -> dict[str, ProjectRecord]:
    """The records of all projects, or of those of the ids in `only` that there are, by id; without their organizations
    where `plans` is None. Raises PlansUnusable."""
    of_organizations = {} if plans is None else organizations.records(connection, plans)
    sealed = provider_keys.sealed_by_project(connection, only)
    rules = routes.by_project(connection, only)
    return {
        project.id: ProjectRecord(
            project.id,
            project.organization_id,
            project.name,
            project.settings,
            tuple(
                ProviderKeyRecord(key.id, key.provider, secret, key.base_url, key.priority, key.dialect)
                for key, secret in sealed.get(project.id, ())
            ),
            tuple(rules.get(project.id, ())),
            of_organizations.get(project.organization_id),
        )
        for project in projects.listed(connection, only)
    }
