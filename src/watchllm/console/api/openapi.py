"""The API's description, OpenAPI 3.1, made of the table of operations that the routes are made of."""

from functools import cache
from typing import Any

from watchllm import __version__
from watchllm.console.api.asked import MOST_ROWS, ROWS
from watchllm.console.api.operations import PATHS, Operation
from watchllm.console.api.schemas import page_of, schemas

_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_PAGE = (
    {"name": "cursor", "in": "query", "description": "`next` of the page before", "schema": {"type": "string"}},
    {
        "name": "limit",
        "in": "query",
        "description": "rows of a page",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": ROWS},
    },
)


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "WatchLLM management API", "version": __version__},
        "servers": [{"url": "/api"}],
        "security": [{"token": []}],
        "paths": {
            path: {
                **({"parameters": [_ID]} if "{id}" in path else {}),
                **{method.lower(): _operation(operation) for method, operation in operations.items()},
            }
            for path, operations in PATHS.items()
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A management token, lgw_admin_…; `watchllm token create` makes one",
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    found = page_of(operation.answer) if operation.paged else _reference(operation.answer)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            str(operation.status): {"description": operation.summary, "content": _json(found)},
            "default": {"description": "What went wrong", "content": _json(_reference("Error"))},
        },
    }
    # All plans are on one page: there is nothing to choose.
    if operation.paged and operation.answer != "Plan":
        described["parameters"] = list(_PAGE)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(_reference(operation.body))}
    return described


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
