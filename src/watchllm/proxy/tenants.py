"""Who is asking: from the credential in a request's headers to a key and its project, out of the snapshot.

What was read is remembered until the snapshot's version changes, which one memory-mapped read a request finds out: a
revoked key is refused by the very next request. It is read anew every few minutes all the same: who asks nothing any
more then costs nothing, and who does, a few microseconds.
"""

from __future__ import annotations

import msgspec

from watchllm.cache.key import KeyHash
from watchllm.domain import keys
from watchllm.domain.errors import GatewayError, Unauthorized, Unavailable
from watchllm.domain.limits import Limits
from watchllm.domain.snapshot import PriceRow, SnapshotReader
from watchllm.domain.usage import ModelPrice
from watchllm.providers.prices import find
from watchllm.proxy.asked import Reader
from watchllm.proxy.tenant import Principal, Tenant
from watchllm.routing.resolve import SIMULATOR, InstanceCredential, Router, Target

_MAX_REMEMBERED = 10_000
_REMEMBERED_SECONDS = 300.0
_BEARER = b"bearer "
# Before the first publication no key is known, so nothing is ever hashed under this.
_UNPUBLISHED = bytes(32)


class Tenants:
    """The snapshot as the proxy uses it: credentials, projects, routes and prices, each looked up once a version."""

    def __init__(self, reader: SnapshotReader, instance: dict[str, InstanceCredential]) -> None:
        self._reader = reader
        self._instance = instance
        self._version = -1
        self._forgets_at = 0.0
        self._principals: dict[bytes, Principal] = {}
        self._tenants: dict[tuple[str, bool, Limits | None], Tenant] = {}
        self._prices: dict[str, tuple[PriceRow, ...]] = {}
        self._model_prices: dict[tuple[str, str, str], ModelPrice | None] = {}
        self._router = Router((), instance)
        self.key_hash = KeyHash(_UNPUBLISHED)
        self.reader = Reader(self.key_hash)

    @property
    def version(self) -> int:
        """The version in use; 0 = nothing was published yet."""
        self._refresh()
        return self._version

    def authenticate(self, headers: dict[bytes, bytes], now_seconds: float) -> Principal:
        """The principal of `Authorization: Bearer …` or `x-api-key: …`. Raises Unauthorized, and Unavailable while
        nothing was published."""
        if self._reader.version() != self._version:
            self._refresh()
        if now_seconds >= self._forgets_at:
            self._forget()
            self._forgets_at = now_seconds + _REMEMBERED_SECONDS
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

    def live_tenant(self, project_id: str) -> Tenant | None:
        """A project as its live keys see it; None = the snapshot does not have it."""
        self._refresh()
        return self._tenant(project_id, test=False)

    def price(self, provider: str, model: str, tier: str = "") -> ModelPrice | None:
        """What `model` costs at `provider`, processed in `tier` (`usage.TIERS`); None = no price is known."""
        key = (provider, model, tier)
        try:
            return self._model_prices[key]
        except KeyError:
            price = find(self.price_rows(provider), model, tier)
            if len(self._model_prices) >= _MAX_REMEMBERED:
                self._model_prices.clear()
            self._model_prices[key] = price
            return price

    def lacks_price(self, tenant: Tenant, target: Target) -> bool:
        """Whether the tenant refuses what has no known price, and `target` has none. The simulated provider costs
        nothing, and test keys reach no other."""
        if not tenant.refuses_unpriced or target.provider == SIMULATOR:
            return False
        return self.price(target.provider, target.model) is None

    def price_rows(self, provider: str) -> tuple[PriceRow, ...]:
        """The price book's rows of a provider, in the order in which they are tried."""
        rows = self._prices.get(provider)
        if rows is None:
            rows = self._prices[provider] = self._reader.prices(provider)
        return rows

    def _refresh(self) -> None:
        while (version := self._reader.version()) != self._version:
            self._read_anew(version)

    def _forget(self) -> None:
        self._principals.clear()
        self._tenants.clear()

    def _read_anew(self, version: int) -> None:
        self._forget()
        self._prices.clear()
        self._model_prices.clear()
        self._router = Router(self._reader.vendors(), self._instance)
        self.key_hash = KeyHash(self._reader.secret("cache_hash") or _UNPUBLISHED)
        self.reader = Reader(self.key_hash)
        self._version = version

    def _tenant(self, project_id: str, *, test: bool, narrowed: Limits | None = None) -> Tenant | None:
        tenant = self._tenants.get((project_id, test, narrowed))
        if tenant is None:
            project = self._reader.project(project_id)
            if project is None:
                return None
            if narrowed is not None:
                project = msgspec.structs.replace(project, narrowed=narrowed)
            tenant = Tenant(project, test=test, router=self._router)
            if len(self._tenants) >= _MAX_REMEMBERED:
                self._tenants.clear()
            self._tenants[(project_id, test, narrowed)] = tenant
        return tenant

    def _look_up(self, credential: bytes) -> Principal:
        if credential[: len(_BEARER)].lower() != _BEARER:
            raise _invalid_key()
        key = credential[len(_BEARER) :].strip().decode("ascii", "replace")
        if not keys.is_well_formed(key):
            raise _invalid_key()
        digest = keys.digest(key)
        while True:
            record = self._reader.key(digest)
            tenant = None
            if record is not None:
                tenant = self._tenant(record.project_id, test=record.test, narrowed=_narrowed_by(record.limits))
            if self._reader.version() == self._version:
                break
            # Another version came between the two: a request is served by one.
            self._refresh()
        if record is None or tenant is None:
            raise _invalid_key() if self._version else _knows_nobody()
        principal = Principal(record, tenant)
        if len(self._principals) >= _MAX_REMEMBERED:
            self._forget()
        self._principals[credential] = principal
        return principal


def _narrowed_by(limits: Limits | None) -> Limits | None:
    """What sets a key apart from others of its project before it is known what it has used: lists of its own, and that
    it has a budget, whatever its amount."""
    if limits is None:
        return None
    narrowed = Limits(
        allowed_models=limits.allowed_models,
        allowed_providers=limits.allowed_providers,
        budget_usd_total=0.0 if limits.has_hard_budget else None,
    )
    return None if narrowed == Limits() else narrowed


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


def _knows_nobody() -> GatewayError:
    return Unavailable(
        "This proxy knows no keys yet: nothing was published to it. Try again in a moment; operators find the reason "
        "with `watchllm doctor`.",
        retry_after=1,
    )


def _invalid_key() -> GatewayError:
    return Unauthorized("This project key is not valid: check it for typing errors, or make a new one.")
