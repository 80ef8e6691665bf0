"""Counts the input tokens of a Messages request where the provider that it would go to cannot."""

from typing import Any

from watchllm.providers import tokens
from watchllm.providers.translation.messages_conversation import conversation
from watchllm.providers.translation.messages_tools import tools
from watchllm.providers.translation.reading import Loss, object_of
from watchllm.providers.translation.request_messages_to_chat import response_format


def count_tokens(document: dict[str, Any]) -> int:
    """About how many tokens the request `document` of `POST /v1/messages/count_tokens` has, by its translation.

    An estimate: see `providers.tokens`. Raises BadRequest for a message or tool that cannot be translated.
    """
    loss = Loss()
    chat: dict[str, Any] = {"messages": conversation(document, loss, reasoning_back=False)}
    if document.get("tools") is not None:
        chat["tools"] = tools(document["tools"], loss)
    if document.get("output_config") is not None:
        chat["response_format"] = response_format(object_of(document["output_config"], "output_config").get("format"))
    return tokens.estimate_request(chat)
