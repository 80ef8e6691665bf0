"""An authenticated key and its project, as one version of the snapshot shows them."""

from __future__ import annotations

from hashlib import blake2b

from watchllm.cache.canonical import Defaults
from watchllm.domain.errors import Forbidden
from watchllm.domain.settings import OFF, REFUSE
from watchllm.domain.snapshot import KeyRecord, ProjectRecord, Vendor
from watchllm.limits.subject import KEY, ORGANIZATION, PROJECT, bounds_of, subject_of
from watchllm.limits.tiers import SELF_HOSTED, TIERS, TIERS_BY_NAME, Tier
from watchllm.proxy.directives import HEADERS, Directives, directives
from watchllm.routing.resolve import Router
from watchllm.routing.route import Route
from watchllm.routing.target import Target

PARTITION_LENGTH = 16
_MAX_ROUTES = 256
_MAX_WISHES = 64
_MAX_SAID = 256
_IN_ORDER = tuple(sorted(HEADERS))
_OF_EMBEDDINGS = b"embeddings"


class Tenant:
    """A project as one version of the snapshot shows it, for live or for test keys.

    `partition` (16 bytes) is the project's part of every cache key; test keys have one of their own. `usual` is what
    the settings say of a request whose headers say nothing; `bodies`, by endpoint, the hash that bodies are recognised
    by. `bounds` are those of the project and of its organization. `narrowing` is empty but for keys that are
    set apart from others of their project, `joins_as` but for those that may use less: they share no calls under way
    with the others. `semantic`: what has no exact answer is looked for by meaning; `hides_hits`: answers do not tell of
    the cache.
    """

    __slots__ = (
        "_defaults",
        "_routes",
        "_wishes",
        "bodies",
        "bounds",
        "hides_hits",
        "joins_as",
        "narrowing",
        "partition",
        "project",
        "refuses_unpriced",
        "router",
        "semantic",
        "settings",
        "test",
        "usual",
        "usual_embeddings",
    )

    def __init__(self, project: ProjectRecord, *, test: bool, router: Router) -> None:
        self.project = project
        self.settings = project.settings
        self.semantic = project.settings.semantic != OFF
        self.hides_hits = not project.settings.hit_headers
        self.test = test
        self.router = router
        self.usual = directives({}, project.settings)
        self.usual_embeddings = directives({}, project.settings, embeddings=True)
        self.bodies: dict[str, blake2b] = {}
        self.partition = partition_of(project.id, test=test)
        organization = project.organization
        self.bounds = (
            bounds_of(project.id, PROJECT, project.settings),
            None
            if organization is None
            else bounds_of(organization.id, ORGANIZATION, organization.limits, organization.overage_requests),
        )
        narrowed = project.narrowed
        budgets = (project.settings, narrowed, None if organization is None else organization.limits)
        self.refuses_unpriced = project.settings.unpriced == REFUSE or (
            project.settings.unpriced is None and any(one is not None and one.has_hard_budget for one in budgets)
        )
        self.narrowing = b"" if narrowed is None else blake2b(repr(narrowed).encode(), digest_size=16).digest()
        self.joins_as = (
            b"" if narrowed is None or narrowed.allowed_models is narrowed.allowed_providers is None else self.narrowing
        )
        self._routes: dict[str, Route] = {}
        self._wishes: dict[tuple[bytes | None, ...], Directives] = {}
        self._defaults: dict[tuple[str, str], Defaults] = {}

    @property
    def tier(self) -> Tier:
        """How it is served when there is not enough for all: here, and nowhere else, a project gets its tier."""
        organization = self.project.organization
        return SELF_HOSTED if organization is None else TIERS_BY_NAME.get(organization.tier, TIERS[-1])

    def defaults(self, vendor: Vendor, family: str) -> Defaults:
        """What a vendor's row declares to mean the same when left out."""
        known = self._defaults.get((vendor.name, family))
        if known is None:
            known = Defaults(vendor.defaults.get(family), vendor.nullable.get(family, ()))
            self._defaults[vendor.name, family] = known
        return known

    def wishes(self, headers: dict[bytes, bytes], *, embeddings: bool) -> Directives:
        """What a request's headers ask for within the project's settings; raises what `directives` raises.

        Remembered, because a client asks the same again and again; not where each user has a cache of his own.
        """
        said = (_OF_EMBEDDINGS if embeddings else None, *map(headers.get, _IN_ORDER))
        wishes = self._wishes.get(said)
        if wishes is None:
            wishes = directives(headers, self.settings, embeddings=embeddings)
            if wishes.user is None and sum(map(len, filter(None, said))) <= _MAX_SAID:
                if len(self._wishes) >= _MAX_WISHES:
                    self._wishes.clear()
                self._wishes[said] = wishes
        return wishes

    def route(self, model: str) -> Route:
        """All that may answer `model`; raises what Router.route raises. Only successes are remembered."""
        route = self._routes.get(model)
        if route is None:
            route = self.router.route(model, self.project, test_key=self.test)
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[model] = route
        return route

    def target(self, model: str) -> Target:
        """Where `model` leads first; raises what Router.route raises."""
        return self.route(model).first


class Principal:
    """An authenticated key and its tenant; `subject` has all limits that it is under, None = there are none. Requests
    come from within each of `address_lists`."""

    __slots__ = ("address_lists", "key", "scopes", "subject", "tenant")

    def __init__(self, key: KeyRecord, tenant: Tenant) -> None:
        self.key = key
        self.scopes = frozenset(key.scopes)
        self.tenant = tenant
        limits = key.limits
        self.subject = subject_of(
            None if limits is None else bounds_of(key.id, KEY, limits),
            *tenant.bounds,
            organization=tenant.project.organization_id,
        )
        project, organization = tenant.project, tenant.project.organization
        lists = (project.settings, limits, None if organization is None else organization.limits)
        self.address_lists = tuple(one.allowed_ips for one in lists if one is not None and one.allowed_ips is not None)

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the key has `scope`."""
        if scope not in self.scopes:
            raise Forbidden(
                f"This key lacks the scope {scope}; make one with `watchllm key create --scope {scope}`.",
                code="scope_missing",
            )


def partition_of(project_id: str, *, test: bool) -> bytes:
    """The 16 bytes that set a project's cache entries apart from all others."""
    return blake2b(project_id.encode(), digest_size=PARTITION_LENGTH, person=b"test" if test else b"live").digest()
