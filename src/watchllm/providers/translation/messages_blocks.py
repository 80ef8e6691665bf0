"""Content blocks of a Messages request as content parts of a chat request: text, images, documents."""

import base64
from typing import Any

from watchllm.providers.translation.messages_fields import no_counterpart, objects, only, take_cache_control
from watchllm.providers.translation.reading import Loss, flag_of, object_of, text_of, wrong

MEDIA_KINDS = ("image", "document")


def said(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as they are usually written: a single text as a plain string."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        only_text: str = parts[0]["text"]
        return only_text
    return parts


def texts(content: Any, field: str, place: str, loss: Loss) -> str | list[dict[str, Any]]:
    """Content that may hold nothing but text, as a system prompt does. Raises BadRequest.

    `field` names it to the client, `place` is the same without numbers.
    """
    if type(content) is str:
        return content
    parts = []
    for at, block in enumerate(objects(content, field)):
        if block.get("type") != "text":
            raise no_counterpart(f"{field}[{at}]")
        parts.append(text_part(block, f"{field}[{at}]", f"{place}[]", loss))
    return said(parts)


def part(block: dict[str, Any], field: str, place: str, loss: Loss) -> dict[str, Any]:
    """One block of a user's content as a part. Raises BadRequest naming the block that has no counterpart."""
    kind = block.get("type")
    if kind == "text":
        return text_part(block, field, place, loss)
    if kind == "image":
        return _image(block, field, place, loss)
    if kind == "document":
        return _document(block, field, place, loss)
    if type(kind) is not str:
        raise wrong(f"{field}.type", "a string")
    raise no_counterpart(field)


def text_part(block: dict[str, Any], field: str, place: str, loss: Loss) -> dict[str, Any]:
    """A text block as a part. Raises BadRequest."""
    only(block, _TEXT, field)
    take_cache_control(block, place, loss)
    if block.get("citations"):
        # Notes of an earlier answer on where its text came from: the text itself is taken along.
        loss.drop(f"{place}.citations")
        loss.exact = False
    return {"type": "text", "text": text_of(block.get("text"), f"{field}.text")}


_TEXT = frozenset(("type", "text", "cache_control", "citations"))
_IMAGE = frozenset(("type", "source", "cache_control", "transformations"))
_DOCUMENT = frozenset(("type", "source", "cache_control", "citations", "title"))
_INLINE = frozenset(("type", "media_type", "data"))
_LINK = frozenset(("type", "url"))
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def _image(block: dict[str, Any], field: str, place: str, loss: Loss) -> dict[str, Any]:
    only(block, _IMAGE, field)
    take_cache_control(block, place, loss)
    if block.get("transformations") not in (None, {}, {"oversized_image": "downsize"}):
        raise no_counterpart(f"{field}.transformations")
    at = f"{field}.source"
    source = object_of(block.get("source"), at)
    kind = source.get("type")
    if kind == "url":
        only(source, _LINK, at)
        url = text_of(source.get("url"), f"{at}.url")
    elif kind == "base64":
        only(source, _INLINE, at)
        media_type = source.get("media_type")
        if media_type not in _IMAGE_TYPES:
            raise wrong(f"{at}.media_type", f"one of {', '.join(_IMAGE_TYPES)}")
        url = f"data:{media_type};base64,{text_of(source.get('data'), f'{at}.data')}"
    else:
        raise no_counterpart(at)
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: dict[str, Any], field: str, place: str, loss: Loss) -> dict[str, Any]:
    only(block, _DOCUMENT, field)
    take_cache_control(block, place, loss)
    citations = block.get("citations")
    if citations is not None and flag_of(
        object_of(citations, f"{field}.citations").get("enabled"), f"{field}.citations"
    ):
        raise no_counterpart(f"{field}.citations")
    at = f"{field}.source"
    source = object_of(block.get("source"), at)
    kind, media_type = source.get("type"), source.get("media_type")
    if kind == "base64" and media_type == "application/pdf":
        data, name = text_of(source.get("data"), f"{at}.data"), "document.pdf"
    elif kind == "text" and media_type == "text/plain":
        data = base64.b64encode(text_of(source.get("data"), f"{at}.data").encode()).decode()
        name = "document.txt"
    else:
        # A link, a file of the Files API or a document made of blocks: a chat's file part holds the file itself.
        raise no_counterpart(at)
    only(source, _INLINE, at)
    title = block.get("title")
    if title is not None:
        name = text_of(title, f"{field}.title")
    return {"type": "file", "file": {"filename": name, "file_data": f"data:{media_type};base64,{data}"}}
