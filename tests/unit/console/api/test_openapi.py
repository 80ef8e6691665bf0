"""The description of the API says what the API does: the same paths, methods and settings, as tools read them."""

from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from watchllm.console.api.openapi import document
from watchllm.console.api.operations import PATHS
from watchllm.control.keys import parse_changes as parse_key_changes
from watchllm.control.organizations import parse_changes
from watchllm.domain.limits import LIMIT_FORMS, parse_limits
from watchllm.domain.settings import ProjectSettings, parse_settings

REFERENCE = Path(__file__).parents[4] / "docs" / "reference" / "api.md"


def nodes(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(node for child in value.values() for node in nodes(child))]
    return [node for child in value for node in nodes(child)] if isinstance(value, list) else []


def test_every_operation_is_described_once() -> None:
    described = {
        (path, method.upper())
        for path, item in document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert described == {(path, method) for path, operations in PATHS.items() for method in operations}
    names = [node["operationId"] for node in nodes(document()["paths"]) if "operationId" in node]
    assert len(set(names)) == len(names) == len(described)


def test_every_schema_is_one_and_every_reference_leads_to_one() -> None:
    schemas = document()["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = {node["$ref"] for node in nodes(document()) if "$ref" in node}
    assert references == {f"#/components/schemas/{name}" for name in schemas}


def test_what_can_be_changed_is_what_the_commands_take() -> None:
    schemas = document()["components"]["schemas"]
    for name, parse in (
        ("ProjectChanges", parse_settings),
        ("KeyChanges", lambda pairs: parse_key_changes(pairs, 0.0)),
        ("NewLimits", parse_limits),
        ("OrganizationChanges", parse_changes),
    ):
        parse(dict.fromkeys(schemas[name]["properties"], ""))
    assert set(schemas["ProjectChanges"]["properties"]) == set(ProjectSettings.__struct_fields__)
    assert set(schemas["KeyChanges"]["properties"]) == {*LIMIT_FORMS, "name", "scopes", "expires"}
    assert set(schemas["NewLimits"]["properties"]) == set(LIMIT_FORMS)


def test_the_reference_names_every_operation_and_every_error() -> None:
    from watchllm.console.api.failures import _CODES, _CODES_BY_STATUS

    text = REFERENCE.read_text(encoding="utf-8")
    for path, operations in PATHS.items():
        for method in operations:
            assert f"`{method} /api{path}`" in text, (method, path)
    for code in {*_CODES.values(), *_CODES_BY_STATUS.values(), "missing_token", "invalid_token", "too_many_attempts"}:
        assert f"`{code}`" in text, code
