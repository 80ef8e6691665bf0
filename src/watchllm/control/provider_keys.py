"""A project's own keys of providers, sealed at rest; only their last four characters are ever shown."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from watchllm.configuration import mask
from watchllm.control import projects
from watchllm.control.database import PROJECT, UnitOfWork
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.tables import provider_keys
from watchllm.domain import ids
from watchllm.domain.sealing import Sealer
from watchllm.domain.snapshot import Vendor
from watchllm.providers.dialect import CHAT, MESSAGES, RESPONSES
from watchllm.setting_forms import messages_base_url

SIMULATED = "sim"
NO_KEY = "-"
_MAX_SECRET = 4096
MAX_PRIORITY = 1000


class ProviderKey(msgspec.Struct, frozen=True):
    """`masked` is all that is shown of the secret, empty where the provider needs none; lower `priority` is tried
    first; `dialect` is None where the vendor's own apply."""

    id: str
    project_id: str
    provider: str
    masked: str
    base_url: str | None
    priority: int
    created_ms: int
    dialect: str | None = None


def add(
    work: UnitOfWork,
    sealer: Sealer,
    project_id: str,
    provider: str,
    secret: str,
    *,
    base_url: str | None,
    priority: int,
    known: Mapping[str, Vendor],
    dialect: str | None = None,
) -> ProviderKey:
    """Seal and keep a key. A provider that is not among the `known` is the project's own: it needs a base URL, may do
    without a key (an empty secret, or `-`), and speaks `dialect`, None = chat.

    Raises NotFound for the project, Invalid for the rest.
    """
    secret = "" if secret == NO_KEY else secret
    _check(provider, secret, base_url, priority, known)
    _check_dialect(provider, dialect, known)
    projects.get(work.connection, project_id)
    _check_same_dialect(work.connection, project_id, provider, dialect)
    key_id = ids.new_id(ids.PROVIDER_KEY)
    vendor = known.get(provider)
    if base_url and (dialect == MESSAGES or (vendor is not None and vendor.dialects == (MESSAGES,))):
        base_url = messages_base_url(base_url)
    url = base_url.rstrip("/") if base_url else None
    masked = mask(secret) if secret else ""
    key = ProviderKey(key_id, project_id, provider, masked, url, priority, work.now_ms, dialect)
    sealed = sealer.seal(secret.encode(), key_id)
    work.connection.execute(insert(provider_keys).values(sealed=sealed, **msgspec.structs.asdict(key)))
    details = {"base_url": key.base_url, "dialect": dialect}
    work.record("provider_key.add", key_id, project=project_id, provider=provider, **details)
    work.publish(PROJECT, project_id)
    return key


def remove(work: UnitOfWork, key_id: str) -> ProviderKey:
    """Delete a provider key, sealed secret and all. Raises NotFound."""
    row = work.connection.execute(select(provider_keys).where(provider_keys.c.id == key_id)).first()
    if row is None:
        raise NotFound(f"no provider key has the id {key_id!r}; `watchllm provider-key list` shows them")
    work.connection.execute(delete(provider_keys).where(provider_keys.c.id == key_id))
    work.record("provider_key.remove", key_id, project=row.project_id, provider=row.provider)
    work.publish(PROJECT, row.project_id)
    return _provider_key(row)


def listed(connection: Connection, project_id: str | None = None) -> list[ProviderKey]:
    """All, or those of a project, in the order they are tried. Raises NotFound for the project."""
    query = select(provider_keys)
    if project_id is not None:
        projects.get(connection, project_id)
        query = query.where(provider_keys.c.project_id == project_id)
    return [_provider_key(row) for row in connection.execute(_in_order(query))]


def sealed_by_project(
    connection: Connection, only: Sequence[str] | None = None
) -> dict[str, list[tuple[ProviderKey, bytes]]]:
    """Provider keys with their sealed secrets, by project: of all projects, or of those in `only`."""
    query = select(provider_keys)
    if only is not None:
        query = query.where(provider_keys.c.project_id.in_(only))
    found: dict[str, list[tuple[ProviderKey, bytes]]] = {}
    for row in connection.execute(_in_order(query)):
        found.setdefault(row.project_id, []).append((_provider_key(row), bytes(row.sealed)))
    return found


def _check(provider: str, secret: str, base_url: str | None, priority: int, known: Mapping[str, Vendor]) -> None:
    if provider == SIMULATED:
        raise Invalid("the simulated provider needs no key: ask for a model sim/…, or set default_provider=sim")
    if not provider.replace("-", "").replace("_", "").isalnum() or not provider.isascii() or len(provider) > 64:
        raise Invalid("a provider's name has up to 64 letters, digits, - and _")
    if provider not in known and base_url is None:
        names = ", ".join(sorted(set(known) - {SIMULATED}))
        raise Invalid(f"unknown provider {provider!r}; known: {names}. One of your own needs --base-url")
    vendor = known.get(provider)
    if vendor is not None and vendor.needs_base_url and base_url is None:
        raise Invalid(f"{provider} has no address of its own: say with --base-url where it answers")
    if not secret and vendor is not None and not vendor.key_optional:
        raise Invalid(f"no secret came on stdin: pipe {provider}'s key in, or use --from-env VAR")
    if len(secret) > _MAX_SECRET or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise Invalid("a provider's key is one line of printable ASCII without spaces")
    if not 0 <= priority <= MAX_PRIORITY:
        raise Invalid(f"priority is a number from 0 to {MAX_PRIORITY}; lower is tried first")
    if base_url is not None:
        check_base_url(base_url)


def _check_same_dialect(connection: Connection, project_id: str, provider: str, dialect: str | None) -> None:
    """The keys of one provider stand in for each other, so they have to be used in the same way."""
    query = select(provider_keys.c.dialect).where(
        provider_keys.c.project_id == project_id, provider_keys.c.provider == provider
    )
    for other in connection.scalars(query):
        if (other or CHAT) != (dialect or CHAT):
            raise Invalid(
                f"the project's other keys of {provider!r} are for the dialect {other or CHAT}, and keys of one "
                "provider stand in for each other: give this one's provider a name of its own"
            )


def _check_dialect(provider: str, dialect: str | None, known: Mapping[str, Vendor]) -> None:
    if dialect is None:
        return
    if provider in known:
        spoken = ", ".join(known[provider].dialects)
        raise Invalid(f"--dialect is for a provider of your own; {provider} speaks {spoken}")
    if dialect not in (CHAT, MESSAGES, RESPONSES):
        raise Invalid(f"a provider speaks {CHAT}, {MESSAGES} or {RESPONSES}, not {dialect!r}")


def check_base_url(base_url: str) -> None:
    """Raises Invalid for one of the wrong form."""
    # Whether its address is allowed is decided on each connection, by the proxy: a name's address can change.
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise Invalid("a base URL looks like https://api.example.com/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise Invalid("a base URL has no user, query or fragment; the key is given apart")


def _in_order(query: Any) -> Any:
    return query.order_by(provider_keys.c.priority, provider_keys.c.created_ms, provider_keys.c.id)


def _provider_key(row: Row[Any]) -> ProviderKey:
    fields = (row.id, row.project_id, row.provider, row.masked, row.base_url, row.priority, row.created_ms, row.dialect)
    return ProviderKey(*fields)
