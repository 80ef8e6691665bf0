"""Values built from a JSON schema are valid for it, whatever the schema asks, or the schema is refused."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.sim.schema import UnsupportedSchema, build_value

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "left", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS: list[Any] = [
    True,
    {},
    TREE,
    {"type": "string", "minLength": 30, "maxLength": 31},
    {"type": "string", "maxLength": 2},
    {"type": "string", "pattern": r"^\d{5}$"},
    {"type": "string", "pattern": "^[A-Z]{3}$"},
    {"type": "string", "format": "date-time"},
    {"type": "integer", "minimum": -5, "maximum": -4},
    {"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 12},
    {"type": "integer", "multipleOf": 7, "minimum": 50},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1},
    {"type": "number", "maximum": -1000.5},
    {"type": ["null", "integer"]},
    {"const": {"a": [1]}},
    {"enum": ["x", 5, None]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 4, "uniqueItems": True},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False},
    {"type": "array", "maxItems": 0},
    {"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}, "minProperties": 3},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"const": 2}}},
        ]
    },
    {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    {
        "type": "object",
        "properties": {"a/b": {"type": "string"}, "c": {"$ref": "#/properties/a~1b"}},
        "required": ["c"],
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
@given(seed=st.binary(min_size=16, max_size=32))
def test_the_value_is_valid_and_the_same_for_the_same_seed(schema: Any, seed: bytes) -> None:
    value = build_value(schema, seed)
    jsonschema.validate(value, schema)
    assert build_value(schema, seed) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"type": "wish"},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "^zzzz-never$"},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": "two"},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "uniqueItems": True},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "number", "multipleOf": 0},
        {"type": "object", "properties": [1]},
        {"not": {"type": "string"}},
        {"enum": []},
        {"anyOf": []},
        False,
        5,
    ],
    ids=str,
)
def test_what_cannot_be_satisfied_is_refused_with_a_reason(schema: Any) -> None:
    with pytest.raises(UnsupportedSchema, match=r"."):
        build_value(schema, bytes(range(32)))


def test_a_recursion_without_end_is_refused() -> None:
    endless = {
        "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
        "$ref": "#/$defs/a",
    }
    with pytest.raises(UnsupportedSchema, match="no end"):
        build_value(endless, bytes(16))
