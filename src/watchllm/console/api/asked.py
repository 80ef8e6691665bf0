"""What a request asks: its path's id, its page, and its body, a JSON object within bounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request

from watchllm.console.bodies import read_body
from watchllm.control.organization_plane import OrganizationPlane
from watchllm.domain import json_body
from watchllm.domain import setting_values as form
from watchllm.domain.errors import BadRequest, WireRefusal
from watchllm.domain.ids import has_form
from watchllm.domain.limits import LIMIT_FORMS, LISTS

MOST_BYTES = 64 * 1024
MOST_ROWS = 100
ROWS = 50

_Body = TypeVar("_Body", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Asked:
    """`own` is what the caller may see and change, `now` in epoch seconds."""

    own: OrganizationPlane
    id: str
    query: QueryParams
    body: Mapping[str, Any]
    now: float

    def page(self, prefix: str) -> tuple[str | None, int]:
        """The id that the page begins behind, of an object with this prefix, and how many rows it has. Raises
        BadRequest."""
        cursor, limit = self.query.get("cursor"), self.query.get("limit", str(ROWS))
        if cursor is not None and not has_form(cursor, prefix):
            raise BadRequest("The cursor is not one that `next` of a page has told.", param="cursor")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 5 and 1 <= int(limit) <= MOST_ROWS):
            raise BadRequest(f"The limit is a whole number from 1 to {MOST_ROWS}.", param="limit")
        return cursor, int(limit)

    def changes(self, parse: Callable[[Mapping[str, str]], dict[str, Any]]) -> dict[str, Any]:
        """The typed changes of settings in the body. Raises BadRequest, and InvalidSetting with the command line's
        message."""
        return changes_in(self.body, parse)

    def as_body(self, kind: type[_Body]) -> _Body:
        """The body as this struct. Raises BadRequest naming the field."""
        try:
            return msgspec.convert(self.body, kind)
        except msgspec.ValidationError as error:
            text, _, place = str(error).partition(" - at `$")
            raise BadRequest(f"{text}.", param=place.strip("`.") or None) from None


def changes_in(values: Mapping[str, Any], parse: Callable[[Mapping[str, str]], dict[str, Any]]) -> dict[str, Any]:
    """The typed changes of these settings, by name. Raises BadRequest, and InvalidSetting with the command line's
    message."""
    return parse({name: _as_text(name, value) for name, value in values.items()})


async def read_document(request: Request) -> dict[str, Any]:
    """The object that the body holds. Raises BadRequest, WireRefusal and HTTPException (413)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise WireRefusal(
            "Send JSON, with `Content-Type: application/json`.", code="unsupported_media_type", status=415
        )
    return json_body.parse(await read_body(request, MOST_BYTES, "body"))


def _as_text(name: str, value: Any) -> str:
    """A setting's value as the command line takes it; null takes a setting away, as an empty value does there."""
    if isinstance(value, list):
        return _as_names(name, value)
    if isinstance(value, dict):
        raise BadRequest(f"{name}: expected a text, a number, true, false or null", param=name, code="invalid_setting")
    return form.text_of(value)


def _as_names(name: str, values: list[Any]) -> str:
    # An empty list would be an empty text, which takes the bound away: the contrary of what it says.
    plain = values and all(isinstance(value, str) and "," not in value and value.strip() for value in values)
    if (name in LIMIT_FORMS and name not in LISTS) or not plain:
        raise BadRequest(
            f"{name}: a list has one or more texts without commas, and is for {', '.join(sorted(LISTS))}; "
            "null takes a setting away",
            param=name,
            code="invalid_setting",
        )
    return ",".join(values)
