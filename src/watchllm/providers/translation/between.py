"""From any dialect to any other: directly where a pair has a translation of its own, else by way of `chat`."""

from __future__ import annotations

from typing import Any

from watchllm.domain.errors import BadRequest
from watchllm.providers.dialect import (
    CHAT,
    MESSAGES,
    RESPONSES,
    StreamTranslator,
    TranslatedAnswer,
    TranslatedRequest,
)

OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""The bound of an answer's length in chat completions: the name that every provider knows, and the one that OpenAI put
in its place and its newer models insist on. Requests are translated and compared with the old one."""


def renamed(document: dict[str, Any], name: str, other: str) -> dict[str, Any]:
    """`document` with the field `name`, where it has it and not the `other`, under the other name, in its place."""
    if name not in document or other in document:
        return document
    return {other if field == name else field: value for field, value in document.items()}


def request_in(to: str, of: str, document: dict[str, Any], model: str) -> TranslatedRequest:
    """The request `document`, which is in the dialect `of`, in the dialect `to`, for the provider's model `model`.

    Raises BadRequest, naming the field, where a field has no counterpart and may not be left out.
    """
    translated = TranslatedRequest(document, (), exact=True) if of == CHAT else _request_in_chat(of, document)
    if to == CHAT:
        return translated
    try:
        further = _request_of_chat(to, translated.document, model)
    except BadRequest as error:
        raise _as_asked(error, of) from None
    dropped = (*translated.dropped, *(name for name in further.dropped if name not in translated.dropped))
    return TranslatedRequest(further.document, dropped, translated.exact and further.exact)


def answer_in(to: str, of: str, body: bytes, request: dict[str, Any], *, created: int = 0) -> TranslatedAnswer:
    """The whole answer `body`, in the dialect `of`, in the dialect `to`, which the request `request` was asked in.

    `created` is when it was given, in Unix seconds, for a dialect that tells it where the other does not.

    Raises Untranslatable.
    """
    answer = TranslatedAnswer(body, exact=True) if of == CHAT else _answer_in_chat(of, body, created)
    if to == CHAT:
        return answer
    if to == MESSAGES:
        from watchllm.providers.translation.answer_chat_to_messages import translate as to_messages

        further = to_messages(answer.body)
        # Chat completions do not tell which of the sequences stopped an answer, nor whether one did.
        further = further._replace(exact=further.exact and not request.get("stop_sequences"))
    else:
        from watchllm.providers.translation.answer_chat_to_responses import translate as to_responses

        further = to_responses(answer.body, request)
    return TranslatedAnswer(further.body, answer.exact and further.exact)


def stream_stages(
    to: str, of: str, request: dict[str, Any], *, created: int = 0, request_id: str = ""
) -> tuple[StreamTranslator, ...]:
    """What turns a stream of the dialect `of` into one of `to`, stage after stage; `created` as in `answer_in`, and
    `request_id` is what an error inside it names where the dialect `to` has that."""
    stages: list[StreamTranslator] = []
    if of == MESSAGES:
        from watchllm.providers.translation.stream_messages_to_chat import Translator as MessagesToChat

        stages.append(MessagesToChat(created=created))
    elif of == RESPONSES:
        from watchllm.providers.translation.stream_responses_to_chat import Translator as ResponsesToChat

        stages.append(ResponsesToChat())
    if to == MESSAGES:
        from watchllm.providers.translation.stream_chat_to_messages import Translator as ChatToMessages

        stages.append(ChatToMessages(request_id))
    elif to == RESPONSES:
        from watchllm.providers.translation.stream_chat_to_responses import Translator as ChatToResponses

        stages.append(ChatToResponses(request))
    return tuple(stages)


def error_in(to: str, of: str, status: int, body: bytes, request_id: str) -> bytes:
    """A provider's error body in the dialect `to`; chat and responses share one form of errors."""
    if (of == MESSAGES) == (to == MESSAGES):
        return body
    from watchllm.providers.translation.errors import anthropic_to_openai, openai_to_anthropic

    return openai_to_anthropic(status, body, request_id) if to == MESSAGES else anthropic_to_openai(status, body)


def _request_of_chat(to: str, document: dict[str, Any], model: str) -> TranslatedRequest:
    if to == MESSAGES:
        from watchllm.providers.anthropic.models import default_max_tokens
        from watchllm.providers.translation.request_chat_to_messages import translate as to_messages

        return to_messages(document, max_tokens=default_max_tokens(model))
    from watchllm.providers.translation.request_chat_to_responses import translate as to_responses

    return to_responses(document)


# What the fields of a chat completion are called where they came from.
_ASKED_AS = {
    RESPONSES: {
        "response_format": "text.format",
        "verbosity": "text.verbosity",
        "logprobs": "include",
        "max_tokens": "max_output_tokens",
        "reasoning_effort": "reasoning.effort",
        "messages": "input",
    },
    MESSAGES: {"stop": "stop_sequences", "response_format": "output_config.format", "user": "metadata.user_id"},
}


def _as_asked(error: BadRequest, of: str) -> BadRequest:
    """The refusal of a field in the words of the dialect that the client spoke."""
    param = error.param or ""
    head, point, rest = param.partition(".")
    name, bracket, place = head.partition("[")
    asked = _ASKED_AS.get(of, {}).get(name)
    if asked is None:
        return error
    written = f"{asked}{bracket}{place}{point}{rest}"
    return BadRequest(error.message.replace(param, written), code=error.code, param=written)


def _request_in_chat(of: str, document: dict[str, Any]) -> TranslatedRequest:
    if of == MESSAGES:
        from watchllm.providers.translation.request_messages_to_chat import translate as of_messages

        translated = of_messages(document)
    else:
        from watchllm.providers.translation.request_responses_to_chat import translate as of_responses

        translated = of_responses(document)
    return translated._replace(document=renamed(translated.document, NEW_LIMIT, OLD_LIMIT))


def _answer_in_chat(of: str, body: bytes, created: int) -> TranslatedAnswer:
    if of == MESSAGES:
        from watchllm.providers.translation.answer_messages_to_chat import translate as of_messages

        return of_messages(body, created=created)
    from watchllm.providers.translation.answer_responses_to_chat import translate as of_responses

    return of_responses(body)
