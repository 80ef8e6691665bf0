"""A request is served by one version of the snapshot, whenever the next one comes."""

import pytest

from watchllm.domain import keys
from watchllm.domain.errors import Unauthorized, Unavailable
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import KeyRecord, PriceRow, ProjectRecord, Vendor
from watchllm.proxy.tenant import Tenant
from watchllm.proxy.tenants import Tenants

KEY = keys.generate(test=False)
HEADERS = {b"authorization": b"Bearer " + KEY.encode()}


class Changing:
    """A snapshot whose next version comes between two reads: the key moves to another project, or is revoked."""

    def __init__(self, *, revoked: bool) -> None:
        self.changes_after = -1
        self._version = 1
        self._revoked = revoked

    def _read(self) -> None:
        if self.changes_after == 0:
            self._version = 2
        self.changes_after -= 1

    def version(self) -> int:
        self._read()
        return self._version

    def key(self, digest: bytes) -> KeyRecord | None:
        self._read()
        if self._version == 2 and self._revoked:
            return None
        return KeyRecord("key_1", f"prj_{self._version}")

    def project(self, project_id: str) -> ProjectRecord | None:
        self._read()
        if project_id != f"prj_{self._version}":
            return None
        return ProjectRecord(project_id, "org_1", f"version {self._version}", ProjectSettings())

    def any_project(self, is_wanted: object, limit: int) -> bool:
        return False

    def vendors(self) -> tuple[Vendor, ...]:
        self._read()
        return (Vendor(f"vendor-{self._version}", "https://a.example/v1"),)

    def prices(self, provider: str) -> tuple[PriceRow, ...]:
        return ()

    def secret(self, name: str) -> bytes | None:
        self._read()
        return bytes([self._version]) * 32


@pytest.mark.parametrize("moment", range(12))
def test_key_project_and_vendors_are_of_one_version(moment: int) -> None:
    snapshot = Changing(revoked=False)
    tenants = Tenants(snapshot, {})
    snapshot.changes_after = moment
    principal = tenants.authenticate(HEADERS, 0.0)
    seen = {principal.key.project_id[-1], principal.tenant.project.name[-1], str(tenants._version)}
    assert len(seen) == 1, seen
    tenant = principal.tenant
    assert tenant.router._vendor(f"vendor-{tenants._version}", tenant.project) is not None


@pytest.mark.parametrize("moment", range(6))
def test_a_key_that_is_revoked_meanwhile_is_refused_or_served_as_before(moment: int) -> None:
    snapshot = Changing(revoked=True)
    tenants = Tenants(snapshot, {})
    snapshot.changes_after = moment
    try:
        principal = tenants.authenticate(HEADERS, 0.0)
    except Unauthorized:
        assert tenants._version == 2
    else:
        assert principal.tenant.project.id == "prj_1"
    snapshot.changes_after = 0
    assert tenants.version == 2
    with pytest.raises(Unauthorized):
        tenants.authenticate(HEADERS, 0.0)


def test_before_anything_was_published_no_key_is_said_to_be_wrong() -> None:
    snapshot = Changing(revoked=True)
    snapshot._version = 0
    snapshot.key = lambda digest: None  # type: ignore[method-assign]
    tenants = Tenants(snapshot, {})
    with pytest.raises(Unavailable, match="nothing was published") as caught:
        tenants.authenticate(HEADERS, 0)
    assert caught.value.retry_after == 1
    mistyped = {b"authorization": b"Bearer " + KEY[:-1].encode() + b"?"}
    with pytest.raises(Unauthorized):
        tenants.authenticate(mistyped, 0)


class Still:
    """A snapshot that does not change, with a project for each key."""

    def __init__(self) -> None:
        self.keys = [keys.generate(test=False) for _ in range(3)]
        self.numbers = {keys.digest(key): number for number, key in enumerate(self.keys)}

    def version(self) -> int:
        return 1

    def key(self, digest: bytes) -> KeyRecord | None:
        return KeyRecord("key_1", f"prj_{self.numbers[digest]}")

    def project(self, project_id: str) -> ProjectRecord | None:
        return ProjectRecord(project_id, "org_1", "n")

    def any_project(self, is_wanted: object, limit: int) -> bool:
        return False

    def vendors(self) -> tuple[Vendor, ...]:
        return ()

    def prices(self, provider: str) -> tuple[PriceRow, ...]:
        return ()

    def secret(self, name: str) -> bytes | None:
        return None


def test_who_asks_nothing_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Still()
    tenants = Tenants(snapshot, {})

    def asks(number: int, now: float) -> Tenant:
        headers = {b"authorization": b"Bearer " + snapshot.keys[number].encode()}
        return tenants.authenticate(headers, now).tenant

    asks(0, 1_000.0)
    busy = asks(1, 1_000.0)
    assert asks(1, 1_299.0) is busy
    assert len(tenants._principals) == len(tenants._tenants) == 2
    assert asks(1, 1_300.0).project == busy.project
    assert len(tenants._principals) == len(tenants._tenants) == 1
    monkeypatch.setattr("watchllm.proxy.tenants._MAX_REMEMBERED", 2)
    for number in range(3):
        tenants.live_tenant(f"prj_{number}")
    assert len(tenants._tenants) <= 2
