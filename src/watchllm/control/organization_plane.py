"""The control plane as one organization's people and tokens see it: what belongs to others does not exist, and what
their role does not allow is refused. The console's forms and the management API both go through here.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from watchllm.control import keys, projects
from watchllm.control.errors import Forbidden, NotFound
from watchllm.control.keys import Key, NewKey
from watchllm.control.organizations import Organization
from watchllm.control.plane import ControlPlane
from watchllm.control.plans import SELF_HOSTED, Plan
from watchllm.control.projects import Project

MAY_CHANGE = ("owner", "admin")
"""Roles that change limits, projects and keys; all others only see them."""


class OrganizationPlane:
    """Look-ups and changes within `organization_id` by somebody of this `role`, on behalf of `plane`'s actor.

    Everything raises NotFound for what is not there or belongs to others; every change raises Forbidden where the role
    does not allow it, and what the same call of the control plane raises.
    """

    def __init__(self, plane: ControlPlane, organization_id: str, role: str) -> None:
        self._plane = plane
        self._organization_id = organization_id
        self._role = role
        self.database = plane.database

    @property
    def may_change(self) -> bool:
        return self._role in MAY_CHANGE

    def organization(self) -> Organization:
        return self._plane.organization(self._organization_id)

    def set_organization(self, changes: Mapping[str, Any]) -> Organization:
        """Apply what `organizations.parse_changes` gave. Raises BeyondPlan for what is the operator's to set."""
        self._check_role()
        return self._plane.set_organization(self._organization_id, changes, within_plan=True)

    def plans(self, organization: Organization) -> dict[str, Plan]:
        """Those that this one can choose from, or the only one it has: what others are sold is not for its eyes."""
        return {name: plan for name, plan in self._plane.plans().items() if organization.plan in (SELF_HOSTED, name)}

    def projects(self, after: str | None, most: int) -> list[Project]:
        """As `projects.page`."""
        with self.database.reading() as connection:
            return projects.page(connection, self._organization_id, after, most)

    def project_count(self) -> int:
        with self.database.reading() as connection:
            return projects.count(connection, self._organization_id)

    def project(self, project_id: str) -> Project:
        found = self._plane.project(project_id)
        if found.organization_id != self._organization_id:
            raise NotFound(f"no project has the id {project_id!r}; `watchllm project list` shows them")
        return found

    def create_project(self, name: str) -> Project:
        self._check_role()
        return self._plane.create_project(name, organization_id=self._organization_id)

    def set_project(self, project_id: str, changes: Mapping[str, Any]) -> Project:
        """Apply settings parsed by `domain.settings.parse_settings`. Raises BeyondPlan for what is the operator's to
        set."""
        self._check_role()
        self.project(project_id)
        return self._plane.set_project(project_id, changes, within_plan=True)

    def keys(self, project_id: str, after: str | None, most: int, *, only_in_force: bool = False) -> list[Key]:
        """As `keys.page`."""
        self.project(project_id)
        with self.database.reading() as connection:
            return keys.page(connection, project_id, after, most, only_in_force=only_in_force)

    def key(self, key_id: str) -> Key:
        found = self._plane.key(key_id)
        if self._plane.project(found.project_id).organization_id != self._organization_id:
            raise NotFound(f"no key has the id {key_id!r}; `watchllm key list` shows them")
        return found

    def create_key(
        self,
        project_id: str,
        *,
        name: str,
        test: bool,
        scopes: Sequence[str],
        expires_at: int,
        limits: Mapping[str, Any] = MappingProxyType({}),
    ) -> NewKey:
        """`expires_at` in epoch seconds, 0 = never; `limits` parsed by `domain.limits.parse_limits`."""
        self._check_role()
        self.project(project_id)
        return self._plane.create_key(
            project_id, name=name, test=test, scopes=scopes, expires_at=expires_at, limits=limits
        )

    def set_key(self, key_id: str, changes: Mapping[str, Any]) -> Key:
        """Apply what `keys.parse_changes` gave."""
        self._check_role()
        self.key(key_id)
        return self._plane.set_key(key_id, changes)

    def warnings(self, changes: Mapping[str, Any], project_id: str | None = None) -> list[str]:
        """What to be told of beside changes that were made, of a project or of what belongs to it, None = of the
        organization."""
        if project_id is None:
            return self._plane.warnings(changes, organization_id=self._organization_id)
        self.project(project_id)
        return self._plane.warnings(changes, project_id=project_id)

    def revoke_key(self, key_id: str) -> Key:
        self._check_role()
        self.key(key_id)
        return self._plane.revoke_key(key_id)

    def _check_role(self) -> None:
        if not self.may_change:
            raise Forbidden(f"the role {self._role} changes nothing; it takes {' or '.join(MAY_CHANGE)}")
