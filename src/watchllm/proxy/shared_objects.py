"""Objects that a provider keeps for its account, named in a request: with a shared key they may be another tenant's.

In Anthropic's and OpenAI's newer dialects, that is: chat completions keep no conversations.
"""

from __future__ import annotations

import re
from typing import Any

from watchllm.domain.errors import Forbidden
from watchllm.routing.target import Target

# Fields that name an object at the provider wherever they stand.
_NAMES_OBJECT = frozenset(("file_id", "file_ids", "vector_store_ids", "previous_response_id", "prompt_id"))
# The same, at the top of a request only.
_NAMES_OBJECT_AT_TOP = frozenset(("conversation", "container"))
# One of these stands in every body that names an object; escapes could hide them.
_MARK = re.compile(
    rb"file_id|vector_store_ids|previous_response_id|prompt_id|conversation|container|item_reference|\\u00"
)


def named_object(document: dict[str, Any], body: bytes) -> str | None:
    """The field of a request that names an object kept at the provider; None = it names none."""
    if _MARK.search(body) is None:
        return None
    for field in _NAMES_OBJECT_AT_TOP:
        if document.get(field) is not None:
            return field
    level: list[Any] = [document]
    while level:
        node = level.pop()
        if type(node) is dict:
            for field, value in node.items():
                if field in _NAMES_OBJECT and value is not None and value != []:
                    return str(field)
                if field == "type" and value == "item_reference":
                    return "item_reference"
                if type(value) is dict or type(value) is list:
                    level.append(value)
        else:
            level.extend(item for item in node if type(item) is dict or type(item) is list)
    return None


def refuse_shared(target: Target, field: str | None) -> None:
    """Raise Forbidden where a request names an object and the target's key is not the project's own."""
    if field is None or target.own_key is not None:
        return
    raise Forbidden(
        f"The field {field!r} names an object that the provider keeps for its account, and projects that share a "
        "provider key could see each other's. Add the project's own provider key with `watchllm provider-key add`.",
        code="own_provider_key_required",
        param=field,
        provider=target.provider,
    )
