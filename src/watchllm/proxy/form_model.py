"""Which model a form names that is passed through, read from its beginning: forms are streamed, not kept."""

from __future__ import annotations

import re

from watchllm.domain.errors import BadRequest

_BOUNDARY = re.compile(
    rb"""multipart/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"]+)"|([^\s;,"]+))[^",]*""", re.IGNORECASE
)
_BOUNDARIES = re.compile(rb"""boundary[\s*0-9]*=""", re.IGNORECASE)
# Whoever writes a field's head in another way means to be read in two ways.
_MODEL = re.compile(rb"""\s*form-data\s*;\s*name\s*=\s*(?:"model"|model)\s*""", re.IGNORECASE)


def boundary_of(content_type: bytes) -> bytes | None:
    """What separates the parts of a form; None where this is no form, or one with two boundaries."""
    boundary = _BOUNDARY.fullmatch(content_type.strip())
    if boundary is None or len(_BOUNDARIES.findall(content_type)) > 1:
        return None
    return boundary[1] or boundary[2]


def model_of_form(boundary: bytes, beginning: bytes) -> str | None:
    """The value of the field `model` if all of it is in `beginning`; None when it is not there.

    Raises BadRequest for a form that names two models.
    """
    delimiter = b"\r\n--" + boundary
    # Before the first delimiter nothing counts; what is behind the last one may have no end yet.
    parts = (b"\r\n" + beginning).split(delimiter)[1:-1]
    models = []
    for part in parts:
        if not part.startswith(b"\r\n"):
            return None  # a longer boundary, which others would take for content, or the end of the form
        head, separator, value = part.partition(b"\r\n\r\n")
        if separator and _is_model(head):
            models.append(value)
    if len(models) > 1:
        raise BadRequest("The form has the field 'model' more than once.", param="model")
    return models[0].decode("utf-8", "replace") if models else None


def _is_model(head: bytes) -> bool:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return _MODEL.fullmatch(value) is not None
    return False
