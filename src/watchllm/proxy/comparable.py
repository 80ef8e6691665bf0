"""A request as it is compared with others: in the words of chat completions, whatever dialect it was asked in.

So one question asked in three dialects is one entry of the cache, where the translation loses nothing of it; what it
would lose sets a request apart from those of other dialects.
"""

from __future__ import annotations

from typing import Any

import msgspec

from watchllm.cache.key import ANSWER_HEADERS, answer_headers
from watchllm.domain.errors import BadRequest
from watchllm.domain.snapshot import Vendor
from watchllm.providers.dialect import ANTHROPIC_VERSION, CHAT, MESSAGES
from watchllm.providers.endpoints import Endpoint

_GENERATE = "generate"
# Versions of Anthropic's API that give the same answers to what both accept (platform.claude.com, "Versions"): the
# newer one refuses sampling parameters, and some blocks that no translation keeps.
_NEWER_VERSION = b"2026-10-21"
_REFUSED_BY_NEWER = ("temperature", "top_p", "top_k")


class Comparable(msgspec.Struct, frozen=True):
    """`family` is the part of the cache: the endpoint's, or one of a dialect's own where `document` is in its words."""

    document: dict[str, Any]
    family: str

    def replaced(self, document: dict[str, Any]) -> Comparable:
        """Another document in the same words."""
        return Comparable(document, self.family)

    def for_vendor(self, vendor: Vendor, model: str) -> dict[str, Any]:
        """The document with what this vendor takes for the same spelled in one way."""
        if self.family != _GENERATE:
            return self.document
        document = self.document
        for alias, field in vendor.aliases.items():
            if alias in document and field not in document:
                document = {field if name == alias else name: value for name, value in document.items()}
        if CHAT in vendor.dialects:
            return document
        from watchllm.providers.anthropic.models import default_max_tokens
        from watchllm.providers.translation.between import NEW_LIMIT, OLD_LIMIT, renamed

        # What is translated for it has one name for the limit, and for Anthropic always one.
        document = renamed(document, NEW_LIMIT, OLD_LIMIT)
        if MESSAGES in vendor.dialects and document.get(OLD_LIMIT) is None:
            document = {**document, OLD_LIMIT: default_max_tokens(model)}
        return _without_null_content(document)


def comparable(endpoint: Endpoint, document: dict[str, Any], model: str) -> Comparable:
    """The request `document` to an endpoint, as it is compared with others. Raises nothing."""
    if endpoint.dialect == CHAT:
        return Comparable(document, endpoint.family)
    from watchllm.providers.translation import between

    try:
        translated = between.request_in(CHAT, endpoint.dialect, document, model)
    except BadRequest:
        translated = None
    if translated is None or not translated.exact:
        return Comparable(document, f"{endpoint.family}.{endpoint.dialect}")
    return Comparable(translated.document, endpoint.family)


def _without_null_content(document: dict[str, Any]) -> dict[str, Any]:
    """An assistant that only calls tools may leave its content out, or say null: translated it is the same."""
    messages = document.get("messages")
    if type(messages) is not list:
        return document
    told = [
        {field: value for field, value in message.items() if field != "content" or value is not None}
        if type(message) is dict and message.get("role") == "assistant"
        else message
        for message in messages
    ]
    return {**document, "messages": told}


def plain_version(headers: dict[bytes, bytes]) -> bytes | None:
    """The version of Anthropic's API that is asked for, `b""` = none by name; None where other headers matter, too."""
    if ANSWER_HEADERS.isdisjoint(headers):
        return b""
    version = headers.get(b"anthropic-version", b"")
    is_plain = version in (ANTHROPIC_VERSION, _NEWER_VERSION)
    return version if is_plain and b"anthropic-beta" not in headers and b"openai-beta" not in headers else None


def lines_that_matter(headers: dict[bytes, bytes], document: dict[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """The header lines that set the answer to `document` apart from that to the same asked without any."""
    if ANSWER_HEADERS.isdisjoint(headers):
        return ()
    same = [ANTHROPIC_VERSION]
    if not any(field in document for field in _REFUSED_BY_NEWER):
        same.append(_NEWER_VERSION)
    lines = answer_headers(list(headers.items()))
    return tuple(line for line in lines if line[0] != "anthropic-version" or line[1] not in same)
