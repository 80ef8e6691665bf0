"""The parts of a chat message's content as Anthropic's content blocks: text, images, files."""

from base64 import b64decode
from binascii import Error as NotBase64
from typing import Any

from watchllm.providers.translation.reading import Loss, list_of, object_of, refusal, refuse_others, text_of

DIALECT = "Anthropic's messages"

_IMAGES = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
# Hints for the provider's prompt cache: one has a counterpart, the other has not.
_HINTS = ("cache_control", "prompt_cache_breakpoint")


def content_blocks(parts: Any, field: str, loss: Loss, *, only_text: bool = False) -> list[dict[str, Any]]:
    """The blocks of a list of parts. Raises BadRequest for a part that has no counterpart."""
    blocks = []
    for number, part in enumerate(list_of(parts, field)):
        where = f"{field}[{number}]"
        kind: Any = object_of(part, where).get("type")
        make = _KINDS.get(kind) if type(kind) is str else None
        if make is None or (only_text and kind != "text"):
            raise refusal(
                f"{where}.type", f"must be {'`text`' if only_text else '`text`, `image_url` or `file`'} here."
            )
        refuse_others(part, ("type", kind, *_HINTS), where, DIALECT)
        blocks.append(make(part, where) | cache_hint(part, where, loss))
    return blocks


def cache_hint(holder: dict[str, Any], where: str, loss: Loss) -> dict[str, Any]:
    """`cache_control`, which clients of several dialects write as Anthropic does."""
    if holder.get("prompt_cache_breakpoint") is not None:
        loss.drop(f"{where}.prompt_cache_breakpoint")
    control = holder.get("cache_control")
    return {} if control is None else {"cache_control": object_of(control, f"{where}.cache_control")}


def _text(part: dict[str, Any], where: str) -> dict[str, Any]:
    return {"type": "text", "text": text_of(part.get("text"), f"{where}.text")}


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    where = f"{where}.image_url"
    image = object_of(part.get("image_url"), where)
    refuse_others(image, ("url", "detail"), where, DIALECT)
    # Anthropic looks at every image in full.
    if image.get("detail") not in (None, "auto", "high", "original"):
        raise refusal(f"{where}.detail", f"has no counterpart in {DIALECT} but for `auto` and `high`.")
    url = text_of(image.get("url"), f"{where}.url")
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(url, f"{where}.url")
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        raise refusal(f"{where}.url", "must be a JPEG, PNG, GIF or WebP image, as a `data:` or an https URL.")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _file(part: dict[str, Any], where: str) -> dict[str, Any]:
    where = f"{where}.file"
    file = object_of(part.get("file"), where)
    if file.get("file_id") is not None:
        raise refusal(f"{where}.file_id", "names a file that only OpenAI has; send its content as `file_data`.")
    refuse_others(file, ("file_data", "filename"), where, DIALECT)
    field = f"{where}.file_data"
    media_type, data = _data_url(text_of(file.get("file_data"), field), field)
    title = file.get("filename")
    titled = {} if title is None else {"title": text_of(title, f"{where}.filename")}
    if media_type == "application/pdf":
        return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}} | titled
    if media_type == "text/plain":
        source = {"type": "text", "media_type": media_type, "data": _decoded(data, field)}
        return {"type": "document", "source": source} | titled
    raise refusal(field, "must be a PDF or plain text.")


_KINDS = {"text": _text, "image_url": _image, "file": _file}


def _data_url(url: str, field: str) -> tuple[str, str]:
    """The media type and the base64 of `data:image/png;base64,…`; the type's parameters mean nothing here."""
    head, comma, data = url.partition(",")
    kind, *parameters = head.removeprefix("data:").split(";")
    if not comma or not head.startswith("data:") or not parameters or parameters[-1] != "base64":
        raise refusal(field, "must be a `data:` URL in base64 (`data:image/png;base64,…`), or for images an https URL.")
    return kind.lower(), data


def _decoded(data: str, field: str) -> str:
    try:
        return b64decode(data, validate=True).decode()
    except (NotBase64, ValueError):
        raise refusal(field, "must hold UTF-8 text in base64.") from None
