"""Reading a request that is to be said in another dialect: checks that name the field at fault, and what gets lost."""

import re
from collections.abc import Collection
from typing import Any

from watchllm.domain.errors import BadRequest

_LONGEST_NAME = 120
_NUMBER = re.compile(r"\[[0-9]+\]")


class Loss:
    """What a translation leaves out (`dropped`, dotted names), and whether the question stayed the same (`exact`).

    A dropped field is named without the number of the item that it is in (`messages[].reasoning_content`), so that
    there are only as many names as there are kinds.
    """

    __slots__ = ("_dropped", "exact")

    def __init__(self) -> None:
        self._dropped: dict[str, None] = {}
        self.exact = True

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names, each once."""
        return tuple(self._dropped)

    def drop(self, field: str) -> None:
        """A field was left out; whether that changes the question, `blur` says."""
        self._dropped[_NUMBER.sub("[]", field)] = None

    def blur(self) -> None:
        """The other dialect can say it only about so."""
        self.exact = False


def refusal(field: str, reason: str) -> BadRequest:
    """The error for `field`; `reason` goes on after its name: "`seed` has no counterpart …"."""
    # A name that the client made up is part of it.
    field = field if len(field) <= _LONGEST_NAME else field[:_LONGEST_NAME] + "…"
    return BadRequest(f"`{field}` {reason}", param=field)


def object_of(value: Any, field: str) -> dict[str, Any]:
    """`value`, which must be an object."""
    if type(value) is not dict:
        raise refusal(field, "must be an object.")
    return value


def list_of(value: Any, field: str) -> list[Any]:
    """`value`, which must be an array."""
    if type(value) is not list:
        raise refusal(field, "must be an array.")
    return value


def text_of(value: Any, field: str) -> str:
    """`value`, which must be a string."""
    if type(value) is not str:
        raise refusal(field, "must be a string.")
    return value


def flag_of(value: Any, field: str) -> bool:
    """`value`, which must be true or false, or left out (false)."""
    if value is None:
        return False
    if type(value) is not bool:
        raise refusal(field, "must be true or false.")
    return value


def count_of(value: Any, field: str) -> int:
    """`value`, which must be a whole number above zero."""
    if type(value) is not int or value < 1:
        raise refusal(field, "must be an integer of at least 1.")
    return value


def whole_of(value: Any, field: str) -> int:
    """`value`, which must be a whole number of at least zero."""
    if type(value) is not int or value < 0:
        raise refusal(field, "must be an integer of at least 0.")
    return value


def number_of(value: Any, field: str, low: float, high: float) -> int | float:
    """`value`, which must be a number from `low` to `high`."""
    if (type(value) is not int and type(value) is not float) or not low <= value <= high:
        raise refusal(field, f"must be a number from {low:g} to {high:g}.")
    return value


def equal(value: Any, other: Any) -> bool:
    """Equal as JSON: 0.0 is 0, but true is not 1."""
    return bool(value == other and (type(value) is bool) is (type(other) is bool))


def refuse_others(given: dict[str, Any], known: Collection[str], where: str, dialect: str) -> None:
    """Refuse what `given` holds beside `known`: nobody knows what it would change. Null is as good as left out."""
    for name, value in given.items():
        if name not in known and value is not None:
            field = f"{where}.{name}" if where else name
            raise refusal(field, f"has no counterpart in {dialect}; leave it out or use a provider that takes it.")
