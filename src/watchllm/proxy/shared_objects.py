"""Objects that a provider keeps for its account, named in a request: with a shared key they may be another tenant's.

In Anthropic's and OpenAI's newer dialects, that is: chat completions keep no conversations.
"""

from __future__ import annotations

import re
from typing import Any

from watchllm.domain.errors import Forbidden
from watchllm.routing.target import Target

# Fields that name an object at the provider wherever they stand.
_NAMES_OBJECT = frozenset(
    ("file_id", "file_ids", "vector_store_ids", "previous_response_id", "container_id", "skill_id")
)
# The same, at the top of a request only.
_NAMES_OBJECT_AT_TOP = frozenset(("conversation", "container"))
# One of these stands in every body that names an object; escapes could hide them.
_MARK = re.compile(
    rb"file_id|vector_store_ids|previous_response_id|conversation|container|skill_id|\"prompt\"|\"id\"|item_reference"
    rb"|\\u00"
)
ITEM_REFERENCE = "item_reference"
# What is in an item of the input, of whatever type, is in one of these.
_CONTENT = (
    *("content", "encrypted_content", "call_id", "name", "arguments", "input", "output", "outputs", "result"),
    *("action", "operation", "code", "queries", "results", "tools"),
)


def named_object(document: dict[str, Any], body: bytes) -> str | None:
    """The field of a request that names an object kept at the provider; None = it names none.

    `item_reference` stands for every item of the input that the provider looks up by its id.
    """
    if _MARK.search(body) is None:
        return None
    for field in _NAMES_OBJECT_AT_TOP:
        if document.get(field) is not None:
            return field
    if type(document.get("prompt")) is dict:
        return "prompt"
    items = document.get("input")
    if type(items) is list and any(type(item) is dict and _is_reference(item) for item in items):
        return ITEM_REFERENCE
    # Of `metadata` the provider reads nothing: it is the client's own, whatever its names.
    level: list[Any] = [{field: value for field, value in document.items() if field != "metadata"}]
    while level:
        node = level.pop()
        if type(node) is dict:
            for field, value in node.items():
                if field in _NAMES_OBJECT and value is not None and value != []:
                    return str(field)
                if field == "container" and type(value) is str:
                    return "container"
                if field == "type" and value == ITEM_REFERENCE:
                    return ITEM_REFERENCE
                if type(value) is dict or type(value) is list:
                    level.append(value)
        else:
            level.extend(item for item in node if type(item) is dict or type(item) is list)
    return None


def _is_reference(item: dict[str, Any]) -> bool:
    """Whether an item of the input stands for one that the provider keeps: it says which, and not what is in it."""
    kind = item.get("type")
    if kind is None:
        return item.get("role") is None
    if not item.get("id"):
        return False
    if kind == "reasoning":
        # Its summary is for people: what the model goes on from is sealed in here, or looked up.
        return not item.get("encrypted_content")
    return not any(item.get(field) for field in _CONTENT)


def refuse_shared(target: Target, field: str | None, *, translated: bool = False) -> None:
    """Raise Forbidden where a request names an object and the target's key is not the project's own.

    A translation takes no ids of items along, so that `translated` requests may have some.
    """
    if field is None or target.own_key is not None or (translated and field == ITEM_REFERENCE):
        return
    raise Forbidden(
        f"The field {field!r} names an object that the provider keeps for its account, and projects that share a "
        "provider key could see each other's. Add the project's own provider key with `watchllm provider-key add`.",
        code="own_provider_key_required",
        param=field,
        provider=target.provider,
    )
