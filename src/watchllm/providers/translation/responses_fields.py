"""Reading the fields of a Responses request: each has the type that the reference names, or is a BadRequest with its
path."""

from collections.abc import Collection
from typing import Any

from watchllm.domain.errors import BadRequest
from watchllm.providers.translation.reading import refusal, wrong

CHAT_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
"""The values of `service_tier` that both dialects have; vendors have others of their own."""


def no_counterpart(path: str) -> BadRequest:
    """The refusal of a field that chat completions have no form for."""
    return refusal(
        path,
        "has no counterpart in chat completions, which the provider of this model speaks. Leave it out, or use a model "
        "of a provider that speaks Responses.",
    )


def a_number(value: Any, path: str) -> int | float:
    if type(value) is not int and type(value) is not float:
        raise wrong(path, "a number")
    return value


def an_integer(value: Any, path: str) -> int:
    if type(value) is not int:
        raise wrong(path, "an integer")
    return value


def an_object(value: Any, path: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """The object `value` without its nulls, which mean the same as nothing. `known` are the fields that it may have:
    any other has no counterpart."""
    if type(value) is not dict:
        raise wrong(path, "an object")
    members = {field: member for field, member in value.items() if member is not None}
    if known is not None:
        for field in members:
            if field not in known:
                raise no_counterpart(f"{path}.{field}")
    return members


def member(holder: dict[str, Any], field: str, path: str) -> Any:
    """The value of a field that must be there; `path` is that of `holder`."""
    if field not in holder:
        raise refusal(f"{path}.{field}", "is missing.")
    return holder[field]
