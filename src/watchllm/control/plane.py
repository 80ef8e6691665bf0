"""The control plane as its users see it, the command line now and the console's API: each change is one call.

A call that changes something returns when the change is committed and in force on this host's proxies.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from watchllm.control import (
    audit,
    judges,
    keys,
    organizations,
    outbox,
    plan_bounds,
    projects,
    provider_keys,
    provider_names,
    records,
    routes,
    secrets,
    tokens,
    users,
    vendors,
)
from watchllm.control.database import KEY, PROJECT, Database, UnitOfWork
from watchllm.control.errors import OnlyKeysPublished, OtherInstallation, PublicationFailed
from watchllm.control.plans import Plan
from watchllm.control.publisher import Publisher
from watchllm.domain.sealing import Keyring, Sealer
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import RouteRecord, Vendor
from watchllm.routing.resolve import Router

if TYPE_CHECKING:
    from watchllm.control.litellm import Imported

_T = TypeVar("_T")


class _OnlyTriedError(Exception):
    """Has a transaction rolled back that was made to see what would come of it."""


class ControlPlane:
    """Changes and look-ups on behalf of `actor`. Every change raises PublicationFailed when it was saved, but could
    not be published yet; besides that, what the slice's function raises."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        keyring: Keyring,
        known_providers: Mapping[str, Vendor],
        actor: str,
    ) -> None:
        self.database = database
        self.publisher = publisher
        self._keyring = keyring
        self._known_providers = known_providers
        self._actor = actor

    def acting_as(self, actor: str) -> "ControlPlane":
        """The same, on behalf of somebody else."""
        return ControlPlane(self.database, self.publisher, self._keyring, self._known_providers, actor)

    def create_project(
        self, name: str, settings: ProjectSettings | None = None, *, organization_id: str | None = None
    ) -> projects.Project:
        """A project of an organization, None = of the first one, which is made when there is none. Raises NotFound."""

        def change(work: UnitOfWork) -> projects.Project:
            owner = organizations.owner(work, organization_id)
            return projects.create(work, owner.id, name, settings or ProjectSettings())

        return self._change(change)

    def set_project(
        self, project_id: str, changes: Mapping[str, Any], *, within_plan: bool = False
    ) -> projects.Project:
        """Apply settings parsed by `domain.settings.parse_settings`; `within_plan`: raise as
        `plan_bounds.check_project` does. Raises Invalid for a judge that the project may not use, or that has no price
        where the project refuses such models."""

        def change(work: UnitOfWork) -> projects.Project:
            project = projects.change_settings(work, project_id, changes)
            if within_plan:
                owner = organizations.get(work.connection, project.organization_id)
                plan_bounds.check_project(owner, changes, self.publisher.plans)
            judges.check(work.connection, project_id, changes, self.publisher.prices)
            return project

        return self._change(change)

    def project(self, project_id: str) -> projects.Project:
        with self.database.reading() as connection:
            return projects.get(connection, project_id)

    def projects(self) -> list[projects.Project]:
        with self.database.reading() as connection:
            return projects.listed(connection)

    def create_key(
        self,
        project_id: str,
        *,
        name: str = "",
        test: bool = False,
        scopes: Sequence[str] = ("inference",),
        expires_at: int = keys.NEVER_EXPIRES,
        limits: Mapping[str, Any] = MappingProxyType({}),
    ) -> keys.NewKey:
        """`expires_at` in epoch seconds; `limits` parsed by `domain.limits.parse_limits`, in force with the key."""

        def change(work: UnitOfWork) -> keys.NewKey:
            return keys.create(
                work, project_id, name=name, test=test, scopes=scopes, expires_at=expires_at, own_limits=limits
            )

        return self._change(change)

    def revoke_key(self, key_id: str) -> keys.Key:
        return self._change(lambda work: keys.revoke(work, key_id))

    def set_key(self, key_id: str, changes: Mapping[str, Any]) -> keys.Key:
        """Apply what `keys.parse_changes` gave."""
        return self._change(lambda work: keys.change(work, key_id, changes))

    def key(self, key_id: str) -> keys.Key:
        with self.database.reading() as connection:
            return keys.get(connection, key_id)

    def keys(self, project_id: str | None = None) -> list[keys.Key]:
        with self.database.reading() as connection:
            return keys.listed(connection, project_id)

    def add_provider_key(
        self,
        project_id: str,
        provider: str,
        secret: str,
        *,
        base_url: str | None = None,
        priority: int = 0,
        dialect: str | None = None,
    ) -> provider_keys.ProviderKey:
        return self._change(
            lambda work: provider_keys.add(
                work,
                secrets.in_force(work.connection, self._keyring),
                project_id,
                provider,
                secret,
                base_url=base_url,
                priority=priority,
                dialect=dialect,
                known=self._known_providers,
            )
        )

    def remove_provider_key(self, key_id: str) -> provider_keys.ProviderKey:
        return self._change(lambda work: provider_keys.remove(work, key_id))

    def provider_keys(self, project_id: str | None = None) -> list[provider_keys.ProviderKey]:
        with self.database.reading() as connection:
            return provider_keys.listed(connection, project_id)

    def set_route(self, project_id: str, rule: RouteRecord) -> routes.Route:
        def change(work: UnitOfWork) -> routes.Route:
            record = records.without_organizations(work.connection, [project_id]).get(project_id)
            router = Router(vendors.vendors(), {})
            return routes.put(
                work, project_id, rule, lambda model: None if record is None else router.leads_to(model, record)
            )

        return self._change(change)

    def remove_route(self, project_id: str, name: str) -> routes.Route:
        return self._change(lambda work: routes.remove(work, project_id, name))

    def routes(self, project_id: str | None = None) -> list[routes.Route]:
        with self.database.reading() as connection:
            return routes.listed(connection, project_id)

    def audit(
        self, *, project_id: str | None = None, since_ms: int | None = None, limit: int = 100
    ) -> list[audit.AuditLine]:
        """The newest changes first. Raises NotFound for a project that does not exist."""
        with self.database.reading() as connection:
            if project_id is not None:
                projects.get(connection, project_id)
            return audit.listed(connection, project_id=project_id, since_ms=since_ms, limit=limit)

    def import_litellm(
        self, text: str, variables: Mapping[str, str], *, project_id: str | None = None, dry_run: bool = False
    ) -> "Imported":
        """Bring a LiteLLM configuration over into a project, None = the only one there is, or say what would come of it
        and change nothing. `variables` are the environment that its keys are referred to in.

        Raises Invalid for what is no such configuration, and where it must be said into which project.
        """
        # Here, not above: a parser of YAML is nothing for every other command to load.
        from watchllm.control import litellm

        with self.database.reading() as connection:
            target = projects.only(connection) if project_id is None else projects.get(connection, project_id)
            places: dict[str, set[str | None]] = {}
            for key in provider_keys.listed(connection, target.id):
                places.setdefault(key.provider, set()).add(key.base_url)
        plan = litellm.read(text, variables, self._known_providers, places)

        def change(work: UnitOfWork) -> "Imported":
            return litellm.apply(work, self._keyring, target.id, plan, known=self._known_providers, dry_run=dry_run)

        return self._tried(change) if dry_run else self._change(change)

    def warnings(
        self, changes: Mapping[str, Any], *, project_id: str | None = None, organization_id: str | None = None
    ) -> list[str]:
        """As `provider_names.warnings`."""
        with self.database.reading() as connection:
            return provider_names.warnings(
                connection, changes, self._known_providers, project_id=project_id, organization_id=organization_id
            )

    def secret_in_force(self) -> Sealer:
        """The master secret that everything is sealed under now."""
        with self.database.reading() as connection:
            return secrets.in_force(connection, self._keyring)

    def rotate_secret(self, new: Sealer) -> int:
        """Seal everything under `new` and publish it; the number of provider keys. Raises PlansUnusable, and changes
        nothing, where some projects could not be published."""
        self.publisher.check_plans()
        self._keyring.learn(new)
        count = self._change(lambda work: secrets.rotate(work, self._keyring, new))
        self._published(self.publisher.publish_all)
        return count

    def authenticate(self, email: str, password: str) -> users.User | None:
        with self.database.reading() as connection:
            return users.authenticate(connection, email, password)

    def user(self, user_id: str) -> users.User | None:
        with self.database.reading() as connection:
            return users.get(connection, user_id)

    def organization(self, organization_id: str) -> organizations.Organization:
        with self.database.reading() as connection:
            return organizations.get(connection, organization_id)

    def all_organizations(self) -> list[organizations.Organization]:
        with self.database.reading() as connection:
            return organizations.listed(connection)

    def create_organization(self, name: str, changes: Mapping[str, Any]) -> organizations.Organization:
        """One with what `organizations.parse_changes` gave."""
        plans = self.publisher.plans()

        def change(work: UnitOfWork) -> organizations.Organization:
            return organizations.change(work, organizations.create(work, name).id, changes, plans)

        return self._change(change)

    def set_organization(
        self, organization_id: str, changes: Mapping[str, Any], *, within_plan: bool = False
    ) -> organizations.Organization:
        """Apply what `organizations.parse_changes` gave; `within_plan`: raise as `plan_bounds.check` does."""
        plans = self.publisher.plans()

        def change(work: UnitOfWork) -> organizations.Organization:
            if within_plan:
                plan_bounds.check(organizations.get(work.connection, organization_id), changes, plans)
            return organizations.change(work, organization_id, changes, plans)

        return self._change(change)

    def plans(self) -> dict[str, Plan]:
        return self.publisher.plans()

    def create_token(
        self,
        organization_id: str | None = None,
        *,
        name: str = "",
        role: str = "admin",
        expires_at: int = tokens.NEVER_EXPIRES,
    ) -> tokens.NewToken:
        """A management token of an organization, None = of the first one, which is made when there is none.
        `expires_at` in epoch seconds. Proxies know no tokens: there is nothing to publish, which could fail and would
        take the only sight of the secret along."""
        with self.database.unit_of_work(self._actor) as work:
            owner = organizations.owner(work, organization_id)
            return tokens.create(work, owner.id, name=name, role=role, expires_at=expires_at)

    def revoke_token(self, token_id: str) -> tokens.Token:
        with self.database.unit_of_work(self._actor) as work:
            return tokens.revoke(work, token_id)

    def token_in_force(self, digest: bytes, now_ms: int) -> tokens.Token | None:
        """The token of this digest, None where none is in force."""
        with self.database.reading() as connection:
            return tokens.in_force(connection, digest, now_ms)

    def tokens(self) -> list[tokens.Token]:
        with self.database.reading() as connection:
            return tokens.listed(connection)

    def has_unpublished(self) -> bool:
        """Whether a committed change still waits to be published."""
        with self.database.reading() as connection:
            return not outbox.is_empty(connection)

    def close(self) -> None:
        self.database.close()

    def _tried(self, change: Callable[[UnitOfWork], _T]) -> _T:
        """What a change would give; it is rolled back."""
        results: list[_T] = []
        try:
            with self.database.unit_of_work(self._actor) as work:
                results.append(change(work))
                raise _OnlyTriedError
        except _OnlyTriedError:
            return results[0]

    def _change(self, change: Callable[[UnitOfWork], _T]) -> _T:
        with self.database.unit_of_work(self._actor) as work:
            result = change(work)
        own_projects = work.published.get(PROJECT, set())
        try:
            self._published(lambda: self.publisher.publish_pending(own_projects))
        except PublicationFailed as error:
            if work.published.keys() != {KEY} or not isinstance(error.__cause__, OnlyKeysPublished):
                error.made = result
                raise
            # It was published; projects wait for the file, which the publisher tells.
        return result

    def _published(self, publish: Callable[[], object]) -> None:
        try:
            publish()
        except OtherInstallation as error:
            raise PublicationFailed(
                f"the change is saved in this host's database, and not published: {error}"
            ) from error
        except Exception as error:
            raise PublicationFailed(
                "the change is saved and will be published by `watchllm up` or the console, but proxies don't know it "
                f"yet: {error}"
            ) from error
