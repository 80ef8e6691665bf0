"""What a request's body says about the answer that it gets."""

from typing import Any

from watchllm.providers.dialect import CHAT
from watchllm.providers.endpoints import Endpoint


def expected_answers(endpoint: Endpoint, document: dict[str, Any]) -> int | None:
    """How many choices or embeddings are asked for, where that is plain."""
    if endpoint.family == "embeddings":
        items = document.get("input")
        if type(items) is not list:
            return 1
        return 1 if items and type(items[0]) is int else len(items)
    return expected_choices(document) if endpoint.family == "generate" and endpoint.dialect == CHAT else None


def expected_choices(document: dict[str, Any]) -> int | None:
    """How many choices a chat completion is asked for, where that is plain."""
    number = document.get("n")
    return number if type(number) is int and number > 0 else None


def takes_usage(document: dict[str, Any]) -> bool:
    """Whether usage can be asked for without mending a mistake that is the provider's to refuse."""
    options = document.get("stream_options")
    if type(options) is dict:
        options = options.get("include_usage")
    return options is None or options is False
