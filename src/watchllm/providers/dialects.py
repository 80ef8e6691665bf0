"""All dialects by name, each loaded when it is first spoken."""

from __future__ import annotations

from functools import cache

from watchllm.providers.dialect import CHAT, MESSAGES, RESPONSES, Dialect


@cache
def dialect(name: str) -> Dialect:
    """The dialect of that name. Raises KeyError for a name that is none."""
    if name == CHAT:
        from watchllm.providers.openai.dialect import DIALECT as CHAT_DIALECT

        return CHAT_DIALECT
    if name == MESSAGES:
        from watchllm.providers.anthropic.dialect import DIALECT as MESSAGES_DIALECT

        return MESSAGES_DIALECT
    if name == RESPONSES:
        from watchllm.providers.responses.dialect import DIALECT as RESPONSES_DIALECT

        return RESPONSES_DIALECT
    raise KeyError(name)
