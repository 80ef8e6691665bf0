"""Reading the fields of a Responses request: each has the type that the reference names, or is a BadRequest with its
path; and what was lost on the way."""

from collections.abc import Collection
from typing import Any

from watchllm.domain.errors import BadRequest

CHAT_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
"""The values of `service_tier` that both dialects have; vendors have others of their own."""


class Losses:
    """What a translation leaves out. `exact` is False once anything is lost or changed that shapes the answer."""

    __slots__ = ("dropped", "exact")

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.exact = True

    def drop(self, path: str, *, shapes_answer: bool = False) -> None:
        """Note that the field at `path` is left out."""
        if len(self.dropped) < _MAX_NAMED:
            self.dropped.append(path)
        if shapes_answer:
            self.exact = False


# The names go into a header; a request may hold thousands of the same field.
_MAX_NAMED = 32
# Paths may end in a name that the client made up.
_MAX_PATH = 200


def no_counterpart(path: str) -> BadRequest:
    """The refusal of a field that chat completions have no form for."""
    path = path[:_MAX_PATH]
    return BadRequest(
        f"`{path}` has no counterpart in chat completions, which the provider of this model speaks. Leave it out, or "
        "use a model of a provider that speaks Responses.",
        param=path,
    )


def invalid(path: str, expected: str) -> BadRequest:
    """`expected` completes the sentence "must be …"."""
    return BadRequest(f"`{path}` must be {expected}.", param=path)


def a_text(value: Any, path: str) -> str:
    if type(value) is not str:
        raise invalid(path, "a string")
    return value


def a_number(value: Any, path: str) -> int | float:
    if type(value) is not int and type(value) is not float:
        raise invalid(path, "a number")
    return value


def an_integer(value: Any, path: str) -> int:
    if type(value) is not int:
        raise invalid(path, "an integer")
    return value


def a_boolean(value: Any, path: str) -> bool:
    if type(value) is not bool:
        raise invalid(path, "true or false")
    return value


def a_list(value: Any, path: str) -> list[Any]:
    if type(value) is not list:
        raise invalid(path, "an array")
    return value


def an_object(value: Any, path: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """The object `value` without its nulls, which mean the same as nothing. `known` are the fields that it may have:
    any other has no counterpart."""
    if type(value) is not dict:
        raise invalid(path, "an object")
    members = {field: member for field, member in value.items() if member is not None}
    if known is not None:
        for field in members:
            if field not in known:
                raise no_counterpart(f"{path}.{field}")
    return members


def member(holder: dict[str, Any], field: str, path: str) -> Any:
    """The value of a field that must be there; `path` is that of `holder`."""
    if field not in holder:
        raise BadRequest(f"`{path}.{field}` is missing.", param=f"{path}.{field}")
    return holder[field]
