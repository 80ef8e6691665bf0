"""Warns of providers that nobody knows in what is set: they may be added later, so they are no error."""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Connection, select

from watchllm.control.provider_keys import SIMULATED
from watchllm.control.tables import projects, provider_keys

_MOST_NAMED = 10


def warnings(
    connection: Connection,
    changes: Mapping[str, Any],
    known: Collection[str],
    *,
    project_id: str | None = None,
    organization_id: str | None = None,
) -> list[str]:
    """A sentence for each setting of `changes` that names providers that are not among the `known`, and that neither
    the project nor any project of the organization has a key for."""
    named = {
        "default_provider": filter(None, [changes.get("default_provider")]),
        "allowed_providers": changes.get("allowed_providers") or (),
    }
    wanted = {setting: tuple(names) for setting, names in named.items()}
    if not any(wanted.values()):
        return []
    query = select(provider_keys.c.provider).distinct()
    if project_id is not None:
        query = query.where(provider_keys.c.project_id == project_id)
    else:
        query = query.join(projects, projects.c.id == provider_keys.c.project_id).where(
            projects.c.organization_id == organization_id
        )
    all_known = {SIMULATED, *known, *connection.scalars(query)}
    unknown = {setting: [name for name in names if name not in all_known] for setting, names in wanted.items()}
    whose = "ID" if project_id is None else project_id
    return [_warning(setting, names, all_known, whose) for setting, names in unknown.items() if names]


def shown(names: Sequence[str], known: Collection[str], what: str = "") -> str:
    """Some of these names, and which of the `known` the first may be meant for."""
    listed = ", ".join(map(repr, names[:_MOST_NAMED])) + (" …" if names[_MOST_NAMED:] else "")
    near = get_close_matches(names[0], sorted(known), n=1)
    return f"{listed}{what}" + (f" (did you mean {near[0]}?)" if near else "")


def _warning(setting: str, names: list[str], known: set[str], project: str) -> str:
    refused = "requests are refused" if setting == "default_provider" else "nothing can be asked of it"
    return (
        f"{setting}: no provider {shown(names, known, ' is known')}, and there is no key for one; {refused} until "
        f"`watchllm provider-key add {names[0]} --base-url URL --project {project}`"
    )
