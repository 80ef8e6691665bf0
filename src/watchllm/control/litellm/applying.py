"""Applies a plan in one transaction, and says what came of it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from watchllm.control import provider_keys, records, routes, secrets
from watchllm.control.database import UnitOfWork
from watchllm.control.errors import Invalid
from watchllm.control.litellm.plan import Plan, PlannedKey, Skipped
from watchllm.domain.sealing import Keyring
from watchllm.domain.snapshot import RouteRecord, Vendor
from watchllm.routing.resolve import Router


class ImportedKey(msgspec.Struct, frozen=True):
    """`id` is that of a key which was there before when `existed`."""

    id: str
    provider: str
    masked: str
    base_url: str | None
    existed: bool


class KeyToAdd(msgspec.Struct, frozen=True):
    """A key whose `variable` is not set here; `command` adds it."""

    provider: str
    variable: str
    command: str


class Imported(msgspec.Struct, frozen=True):
    """What was brought over, or would be when it was only tried, and what was not."""

    project_id: str
    dry_run: bool
    provider_keys: tuple[ImportedKey, ...]
    keys_to_add: tuple[KeyToAdd, ...]
    routes: tuple[RouteRecord, ...]
    unchanged: tuple[str, ...]
    not_imported: tuple[Skipped, ...]


def apply(
    work: UnitOfWork,
    keyring: Keyring,
    project_id: str,
    plan: Plan,
    *,
    known: Mapping[str, Vendor],
    dry_run: bool,
) -> Imported:
    """Add the plan's keys and set its routes. Those that may not be are reported, and the others are kept; a key that
    the project has already is not added again. Raises NotFound for the project."""
    added: list[ImportedKey] = []
    rules: list[RouteRecord] = []
    skipped = list(plan.skipped)
    held = _held(work, keyring, project_id)
    for key in plan.keys:
        if key.secret is None:
            continue
        try:
            added.append(held.get(_identity(key)) or _add(work, keyring, project_id, key, len(added), known))
        except Invalid as error:
            skipped.append(Skipped(key.path, f"the key of {key.provider} is not added: {error}"))
    # With the keys of this plan, which make providers of the project's own known.
    record = records.without_organizations(work.connection, [project_id])[project_id]
    router = Router(tuple(known.values()), {})
    for planned in plan.routes:
        try:
            routes.put(work, project_id, planned.rule, lambda model: router.leads_to(model, record))
            rules.append(planned.rule)
        except Invalid as error:
            skipped.append(Skipped(planned.path, f"the route {planned.rule.name} is not set: {error}"))
    missing = tuple(_missing(key, project_id) for key in plan.keys if key.secret is None and key.variable)
    return Imported(project_id, dry_run, tuple(added), missing, tuple(rules), plan.unchanged, tuple(skipped))


def _add(
    work: UnitOfWork, keyring: Keyring, project_id: str, key: PlannedKey, priority: int, known: Mapping[str, Vendor]
) -> ImportedKey:
    made = provider_keys.add(
        work,
        secrets.in_force(work.connection, keyring),
        project_id,
        key.provider,
        key.secret or "",
        base_url=key.base_url,
        priority=min(priority, provider_keys.MAX_PRIORITY),
        known=known,
        dialect=key.dialect,
    )
    return ImportedKey(made.id, made.provider, made.masked, made.base_url, existed=False)


def _held(work: UnitOfWork, keyring: Keyring, project_id: str) -> dict[tuple[Any, ...], ImportedKey]:
    """The project's keys now, by provider, place and secret."""
    found = {}
    for key, sealed in provider_keys.sealed_by_project(work.connection, [project_id]).get(project_id, ()):
        secret = keyring.open(sealed, key.id).decode()
        found[key.provider, key.base_url, secret] = ImportedKey(
            key.id, key.provider, key.masked, key.base_url, existed=True
        )
    return found


def _identity(key: PlannedKey) -> tuple[Any, ...]:
    return key.provider, key.base_url, "" if key.secret == provider_keys.NO_KEY else key.secret


def _missing(key: PlannedKey, project_id: str) -> KeyToAdd:
    place = f" --base-url {key.base_url}" if key.base_url else ""
    command = f"watchllm provider-key add {key.provider} --project {project_id} --from-env {key.variable}{place}"
    return KeyToAdd(key.provider, key.variable or "", command)
