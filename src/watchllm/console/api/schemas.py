"""The schemas of what the API takes and answers. Settings are taken from the code that reads them, so that a new one is
described as soon as it can be set."""

from collections.abc import Iterable
from typing import Any

import msgspec

from watchllm.control.keys import SCOPES, SETTINGS
from watchllm.control.plans import Plan
from watchllm.domain.limits import LIMIT_FORMS, Limits
from watchllm.domain.settings import ProjectSettings

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_ID = _TEXT
_MOMENT: Schema = {"type": "string", "format": "date-time"}
_MOMENT_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
_USD: Schema = {"type": "string", "description": "US dollars with six decimals"}
_WARNINGS: Schema = {"type": "array", "items": _TEXT, "description": "Where there are some; the change was made"}
_VALUE: Schema = {
    "description": "As `watchllm … set` takes it; null takes the setting away.",
    "type": ["string", "number", "boolean", "array", "null"],
    "items": _TEXT,
}


def schemas() -> dict[str, Schema]:
    """By name, as the operations name them."""
    _, settings = msgspec.json.schema_components(
        (Limits, ProjectSettings, Plan), ref_template="#/components/schemas/{name}"
    )
    key = {
        "id": _ID,
        "prefix": _TEXT,
        "name": _TEXT,
        "project_id": _ID,
        "scopes": {"type": "array", "items": {"enum": list(SCOPES)}},
        "test": {"type": "boolean"},
        "created_at": _MOMENT,
        "expires_at": _MOMENT_OR_NULL,
        "revoked_at": _MOMENT_OR_NULL,
        "limits": _named("Limits"),
    }
    plan = settings.pop("Plan")
    organization = _object(
        {
            "id": _ID,
            "name": _TEXT,
            "plan": _TEXT,
            "overage_cap_usd": {"type": ["number", "null"]},
            "created_at": _MOMENT,
            "limits": _named("Limits"),
        }
    )
    project = _object(
        {
            "id": _ID,
            "name": _TEXT,
            "organization_id": _ID,
            "created_at": _MOMENT,
            "settings": _named("ProjectSettings"),
        }
    )
    new_key = {
        **key,
        "key": {**_TEXT, "description": "The key itself, shown here and never again"},
        "published": {"type": "boolean", "description": "False: in force as soon as it can be published"},
    }
    return {
        **{name: _plainly(schema) for name, schema in settings.items()},
        "Plan": _plainly(plan) | {"properties": {"name": _TEXT, **plan["properties"]}, "required": ["name"]},
        "Organization": organization,
        "ChangedOrganization": _changed(organization),
        "Project": project,
        "ChangedProject": _changed(project),
        "Key": _object(key),
        "ChangedKey": _changed(_object(key)),
        "NewlyMadeKey": _changed(_object(new_key)),
        "Spent": _object(
            {"id": _ID, "requests_month": {"type": "integer"}}
            | dict.fromkeys(("usd_day", "usd_month", "usd_total"), _USD)
            | {"alerts": {**_WARNINGS, "description": "Names of budgets that were passed and only alert"}}
        ),
        "OrganizationChanges": _changes([*LIMIT_FORMS, "plan", "overage_cap_usd"]),
        "ProjectChanges": _changes(ProjectSettings.__struct_fields__),
        "KeyChanges": _changes([*LIMIT_FORMS, *SETTINGS]),
        "NewLimits": _changes(LIMIT_FORMS),
        "NewProject": _object({"name": _TEXT}),
        "NewKey": _object(
            {
                "name": _TEXT,
                "test": {"type": "boolean"},
                "scopes": {"type": "array", "items": {"enum": list(SCOPES)}},
                "expires": {**_TEXT, "description": "90d, 12h, 30m or a date; empty: never"},
                "limits": _named("NewLimits"),
            },
            required=(),
        ),
        "Error": _object({"error": _object({"code": _TEXT, "message": _TEXT, "param": {"type": ["string", "null"]}})}),
    }


def page_of(name: str) -> Schema:
    """A page of documents; `next` is the cursor of the page behind it, null on the last."""
    return _object({"data": {"type": "array", "items": _named(name)}, "next": {"type": ["string", "null"]}})


def _changed(document: Schema) -> Schema:
    """A document as a change answers it."""
    told = {**document["properties"], "warnings": _WARNINGS}
    return document | {"properties": told}


def _object(properties: dict[str, Schema], required: Iterable[str] | None = None) -> Schema:
    names = list(properties if required is None else required)
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | {"required": names} if names else schema


def _changes(names: Iterable[str]) -> Schema:
    return _object(dict.fromkeys(sorted(names), _VALUE), required=())


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _plainly(schema: Schema) -> Schema:
    """Without the line breaks of the code's docstring."""
    return schema | {"description": " ".join(schema["description"].split())}
