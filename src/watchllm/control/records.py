"""Projects as proxies know them: settings, sealed provider keys and routes in one record."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection

from watchllm.control import organizations, projects, provider_keys, routes
from watchllm.control.plans import Plan
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord


def published(
    connection: Connection, plans: Mapping[str, Plan], only: Sequence[str] | None = None
) -> tuple[dict[str, ProjectRecord], frozenset[str]]:
    """The records of all projects, or of those of the ids in `only` that there are, by id; and the ids of those that
    have none, because their organization's plan is not there any more."""
    found = without_organizations(connection, only)
    owners = None if only is None else {record.organization_id for record in found.values()}
    of_organizations = organizations.records(connection, plans, owners)
    ready = {
        record.id: msgspec.structs.replace(record, organization=of_organizations[record.organization_id])
        for record in found.values()
        if record.organization_id in of_organizations
    }
    return ready, frozenset(found.keys() - ready.keys())


def without_organizations(connection: Connection, only: Sequence[str] | None = None) -> dict[str, ProjectRecord]:
    """The same records, whatever their organizations may use: for what depends on the projects alone."""
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
        )
        for project in projects.listed(connection, only)
    }
