"""Objects as JSON documents: what commands print with `--json` and the management API answers, the same in both.

Loads nothing of the database: every command imports it before it knows whether it needs one.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from watchllm.domain.moments import timestamp

if TYPE_CHECKING:
    from watchllm.control.keys import Key, NewKey
    from watchllm.control.organizations import Organization
    from watchllm.control.plans import Plan
    from watchllm.control.projects import Project
    from watchllm.control.tokens import NewToken, Token


def organization(organization: "Organization") -> dict[str, Any]:
    return {
        "id": organization.id,
        "name": organization.name,
        "plan": organization.plan,
        "overage_cap_usd": organization.overage_cap_usd,
        "created_at": timestamp(organization.created_ms),
        "limits": msgspec.structs.asdict(organization.limits),
    }


def plan(name: str, plan: "Plan") -> dict[str, Any]:
    return {"name": name} | msgspec.structs.asdict(plan)


def project(project: "Project") -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "organization_id": project.organization_id,
        "created_at": timestamp(project.created_ms),
        "settings": msgspec.structs.asdict(project.settings),
    }


def key(key: "Key") -> dict[str, Any]:
    return {
        "id": key.id,
        "prefix": key.prefix,
        "name": key.name,
        "project_id": key.project_id,
        "scopes": key.scopes,
        "test": key.test,
        "created_at": timestamp(key.created_ms),
        "expires_at": timestamp(key.expires_at * 1000) if key.expires_at else None,
        "revoked_at": timestamp(key.revoked_ms),
        "limits": msgspec.structs.asdict(key.limits),
    }


def new_key(made: "NewKey", *, published: bool = True) -> dict[str, Any]:
    """With the key itself: the only document that has it. Not `published`: it is in force as soon as it can be."""
    return {"id": made.record.id, "key": made.secret} | key(made.record) | {"published": published}


def token(token: "Token") -> dict[str, Any]:
    return {
        "id": token.id,
        "prefix": token.prefix,
        "name": token.name,
        "role": token.role,
        "organization_id": token.organization_id,
        "created_at": timestamp(token.created_ms),
        "expires_at": timestamp(token.expires_at * 1000) if token.expires_at else None,
        "revoked_at": timestamp(token.revoked_ms),
    }


def new_token(made: "NewToken") -> dict[str, Any]:
    """With the token itself: the only document that has it."""
    return {"id": made.record.id, "token": made.secret} | token(made.record)
