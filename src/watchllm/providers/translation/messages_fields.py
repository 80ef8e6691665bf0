"""Reads the fields of a Messages request strictly: a wrong type, or what has no counterpart, is refused by its name."""

from collections.abc import Collection
from typing import Any

from watchllm.domain.errors import BadRequest


class Loss:
    """What a translation could not take along: `dropped` fields, and whether the rest still asks `exact`ly the same.

    A dropped field is named without the number of the item it is in (`messages[].content[].cache_control`), so that
    there are only as many names as there are kinds.
    """

    __slots__ = ("_dropped", "exact")

    def __init__(self) -> None:
        self._dropped: dict[str, None] = {}
        self.exact = True

    def drop(self, field: str) -> None:
        self._dropped[field] = None

    @property
    def dropped(self) -> tuple[str, ...]:
        return tuple(self._dropped)


def wrong(field: str, expected: str) -> BadRequest:
    """The refusal of a value that is not what `expected` says."""
    return BadRequest(f"{field} must be {expected}.", param=field)


def no_counterpart(field: str) -> BadRequest:
    """The refusal of a field that chat completions cannot express."""
    return BadRequest(
        f"{field} has no counterpart in chat completions, which this model's provider speaks. Leave it out, or choose "
        "a model whose provider speaks the Messages API.",
        param=field,
    )


def text(value: Any, field: str) -> str:
    """`value`, which must be a string. Raises BadRequest."""
    if type(value) is not str:
        raise wrong(field, "a string")
    return value


def object_(value: Any, field: str) -> dict[str, Any]:
    """`value`, which must be an object. Raises BadRequest."""
    if type(value) is not dict:
        raise wrong(field, "an object")
    return value


def objects(value: Any, field: str) -> list[dict[str, Any]]:
    """`value`, which must be an array of objects. Raises BadRequest."""
    if type(value) is not list:
        raise wrong(field, "an array")
    for at, item in enumerate(value):
        if type(item) is not dict:
            raise wrong(f"{field}[{at}]", "an object")
    return value


def flag(value: Any, field: str) -> bool:
    """`value`, which must be a boolean or null (false). Raises BadRequest."""
    if value is not None and type(value) is not bool:
        raise wrong(field, "a boolean")
    return bool(value)


def number(value: Any, field: str, low: float, high: float) -> int | float:
    """`value`, which must be a number from `low` to `high`. Raises BadRequest."""
    if (type(value) is not int and type(value) is not float) or not low <= value <= high:
        raise wrong(field, f"a number from {low:g} to {high:g}")
    return value


def positive(value: Any, field: str) -> int:
    """`value`, which must be an integer of at least 1. Raises BadRequest."""
    if type(value) is not int or value < 1:
        raise wrong(field, "an integer of at least 1")
    return value


def only(holder: dict[str, Any], known: Collection[str], field: str) -> None:
    """Raises BadRequest for a member that is not `known` here. Null counts as left out."""
    for name, value in holder.items():
        if name not in known and value is not None:
            raise no_counterpart(f"{field}.{excerpt(name)}")


def excerpt(name: str) -> str:
    """A name that a client made up, short enough for a message."""
    return name if len(name) <= 60 else name[:60] + "…"


def take_cache_control(holder: dict[str, Any], place: str, loss: Loss) -> None:
    """Note that a marker for the provider's prompt cache is not taken along: it changes a price, never an answer."""
    if holder.get("cache_control") is not None:
        loss.drop(f"{place}.cache_control")
