"""What an import is going to do: the keys to add, the routes to set, and what could not be brought over."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from watchllm.control.errors import Invalid
from watchllm.domain.snapshot import RouteRecord


class PlannedKey(msgspec.Struct, frozen=True):
    """A provider key. `secret` is None when the `variable` that holds it is not set here; `path` is its place in the
    file."""

    provider: str
    base_url: str | None
    dialect: str | None
    secret: str | None
    variable: str | None
    path: str

    def __repr__(self) -> str:
        return f"PlannedKey(provider={self.provider!r}, variable={self.variable!r}, path={self.path!r}, secret=***)"


class PlannedRoute(msgspec.Struct, frozen=True):
    rule: RouteRecord
    path: str


class Skipped(msgspec.Struct, frozen=True):
    """What is not brought over: its place in the file, such as `model_list[2].litellm_params.rpm`, and why."""

    path: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """`unchanged` are models that lead where the file has them lead without a route."""

    keys: tuple[PlannedKey, ...]
    routes: tuple[PlannedRoute, ...]
    unchanged: tuple[str, ...]
    skipped: tuple[Skipped, ...]


class Section:
    """A mapping of the file, read field by field: what nobody asked for is reported at the end.

    Raises Invalid, which names the place, for a value of the wrong type.
    """

    def __init__(self, value: Any, path: str, skip: Callable[[str, str], None]) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise Invalid(f"{path or 'the file'}: a mapping belongs here, not {_kind(value)}")
        self._fields: Mapping[str, Any] = value
        self._seen: set[str] = set()
        self.report = skip
        self.path = path

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def fill_in(self, fields: Mapping[str, Any]) -> None:
        """Take in what is said elsewhere; what is said here holds."""
        self._fields = {**fields, **self._fields}

    def names(self) -> Iterable[str]:
        return self._fields

    def raw(self, name: str) -> Any:
        self._seen.add(name)
        return self._fields.get(name)

    def section(self, name: str) -> "Section":
        return Section(self.raw(name), self.at(name), self.report)

    def sequence(self, name: str) -> Sequence[Any]:
        value = self.raw(name)
        if value is not None and not isinstance(value, list):
            raise Invalid(f"{self.at(name)}: a list belongs here, not {_kind(value)}")
        return value or []

    def text(self, name: str) -> str | None:
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise Invalid(f"{self.at(name)}: a text belongs here, not {_kind(value)}")
        return value or None

    def number(self, name: str) -> float | None:
        """A number that is not negative; a numeral in quotes is one, too, as LiteLLM has it."""
        value = self.raw(name)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise Invalid(f"{self.at(name)}: a number belongs here") from None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
            raise Invalid(f"{self.at(name)}: a number from 0 on belongs here, not {_kind(value)}")
        return float(value)

    def skip(self, name: str, reason: str) -> None:
        """Report the field, if it is there."""
        self._seen.add(name)
        if self._fields.get(name) is not None:
            self.report(self.at(name), reason)

    def skip_rest(self, reason: str) -> None:
        """Report every field that nobody asked for."""
        for name in self._fields:
            if name not in self._seen:
                self.skip(name, reason)


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
