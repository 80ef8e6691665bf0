"""Who is asking: from the credential in a request's headers to a key and its project, out of the snapshot.

What was read is remembered until the snapshot's version changes, which one memory-mapped read a request finds out: a
revoked key is refused by the very next request.
"""

from __future__ import annotations

from hashlib import blake2b

from watchllm.cache.canonical import Defaults
from watchllm.domain import keys
from watchllm.domain.errors import Forbidden, GatewayError, Unauthorized
from watchllm.domain.snapshot import KeyRecord, PriceRow, ProjectRecord, SnapshotReader, Vendor
from watchllm.domain.usage import ModelPrice
from watchllm.routing.resolve import InstanceCredential, Router, Target

_MAX_REMEMBERED = 10_000
_MAX_TARGETS = 256
_BEARER = b"bearer "


class Tenant:
    """A project as one version of the snapshot shows it, for live or for test keys.

    `partition` (16 bytes) is the project's part of every cache key; test keys have one of their own.
    """

    __slots__ = ("_defaults", "partition", "project", "router", "settings", "targets", "test")

    def __init__(self, project: ProjectRecord, *, test: bool, router: Router) -> None:
        self.project = project
        self.settings = project.settings
        self.test = test
        self.router = router
        self.partition = partition_of(project.id, test=test)
        self.targets: dict[str, Target] = {}
        self._defaults: dict[tuple[str, str], Defaults] = {}

    def defaults(self, vendor: Vendor, family: str) -> Defaults:
        """What a vendor's row declares to mean the same when left out."""
        known = self._defaults.get((vendor.name, family))
        if known is None:
            known = Defaults(vendor.defaults.get(family), vendor.nullable.get(family, ()))
            self._defaults[vendor.name, family] = known
        return known

    def target(self, model: str) -> Target:
        """Where `model` leads; raises what Router.resolve raises. Only successes are remembered."""
        target = self.targets.get(model)
        if target is None:
            target = self.router.resolve(model, self.project, test_key=self.test)
            if len(self.targets) >= _MAX_TARGETS:
                self.targets.clear()
            self.targets[model] = target
        return target


class Principal:
    """An authenticated key and its tenant."""

    __slots__ = ("key", "scopes", "tenant")

    def __init__(self, key: KeyRecord, tenant: Tenant) -> None:
        self.key = key
        self.scopes = frozenset(key.scopes)
        self.tenant = tenant

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the key has `scope`."""
        if scope not in self.scopes:
            raise Forbidden(
                f"This key lacks the scope {scope}; make one with `watchllm key create --scope {scope}`.",
                code="scope_missing",
            )


class Tenants:
    """The snapshot as the proxy uses it: credentials, projects, routes and prices, each looked up once a version."""

    def __init__(self, reader: SnapshotReader, instance: dict[str, InstanceCredential]) -> None:
        self._reader = reader
        self._instance = instance
        self._version = -1
        self._principals: dict[bytes, Principal] = {}
        self._tenants: dict[tuple[str, bool], Tenant] = {}
        self._prices: dict[str, tuple[PriceRow, ...]] = {}
        self._model_prices: dict[tuple[str, str], ModelPrice | None] = {}
        self._router = Router((), instance)
        self.hash_key = b""

    @property
    def version(self) -> int:
        """The version in use; 0 = nothing was published yet."""
        self._refresh()
        return self._version

    def authenticate(self, headers: dict[bytes, bytes], now_seconds: float) -> Principal:
        """The principal of `Authorization: Bearer …` or `x-api-key: …`; raises Unauthorized."""
        self._refresh()
        credential = headers.get(b"authorization")
        api_key = headers.get(b"x-api-key")
        if credential is None or api_key is not None:
            credential = _one_credential(credential, api_key)
        principal = self._principals.get(credential)
        if principal is None:
            principal = self._look_up(credential)
        expires_at = principal.key.expires_at
        if expires_at and now_seconds >= expires_at:
            raise _invalid_key()
        return principal

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """What `model` costs at `provider`; None = no price is known."""
        key = (provider, model)
        try:
            return self._model_prices[key]
        except KeyError:
            from watchllm.providers.prices import find

            price = find(self.price_rows(provider), model)
            if len(self._model_prices) >= _MAX_REMEMBERED:
                self._model_prices.clear()
            self._model_prices[key] = price
            return price

    def price_rows(self, provider: str) -> tuple[PriceRow, ...]:
        """The price book's rows of a provider, in the order in which they are tried."""
        rows = self._prices.get(provider)
        if rows is None:
            rows = self._prices[provider] = self._reader.prices(provider)
        return rows

    def _refresh(self) -> None:
        version = self._reader.version()
        if version == self._version:
            return
        self._principals.clear()
        self._tenants.clear()
        self._prices.clear()
        self._model_prices.clear()
        self._router = Router(self._reader.vendors(), self._instance)
        self.hash_key = self._reader.secret("cache_hash") or b""
        self._version = version

    def _look_up(self, credential: bytes) -> Principal:
        if credential[: len(_BEARER)].lower() != _BEARER:
            raise _invalid_key()
        key = credential[len(_BEARER) :].strip().decode("ascii", "replace")
        record = self._reader.key(keys.digest(key)) if keys.is_well_formed(key) else None
        project = self._reader.project(record.project_id) if record is not None else None
        if record is None or project is None:
            raise _invalid_key()
        tenant = self._tenants.get((project.id, record.test))
        if tenant is None:
            tenant = self._tenants[(project.id, record.test)] = Tenant(project, test=record.test, router=self._router)
        principal = Principal(record, tenant)
        if len(self._principals) >= _MAX_REMEMBERED:
            self._principals.clear()
            self._tenants.clear()
        self._principals[credential] = principal
        return principal


def partition_of(project_id: str, *, test: bool) -> bytes:
    """The 16 bytes that set a project's cache entries apart from all others."""
    return blake2b(project_id.encode(), digest_size=16, person=b"test" if test else b"live").digest()


def _one_credential(authorization: bytes | None, api_key: bytes | None) -> bytes:
    """The credential in the form `Bearer …`; two that differ are refused."""
    if api_key is None:
        if authorization is None:
            raise Unauthorized(
                "Send a project key as 'Authorization: Bearer lgw_…' or 'x-api-key: lgw_…'.", code="missing_api_key"
            )
        return authorization
    as_bearer = b"Bearer " + api_key.strip()
    if authorization is not None and authorization[len(_BEARER) :].strip() != api_key.strip():
        raise Unauthorized("The Authorization and x-api-key headers hold different keys; send one.")
    return as_bearer


def _invalid_key() -> GatewayError:
    return Unauthorized("This project key is not valid: check it for typing errors, or make a new one.")
