"""The frame of a response that is made of a chat completion: ids, the echo of the request, status and usage."""

from hashlib import blake2b
from typing import Any

from watchllm.providers.dialect import Untranslatable
from watchllm.providers.translation.responses_fields import CHAT_TIERS


class Ids:
    """The ids of a response and its items, all made of the chat completion's own: `resp_…`, `msg_…_0`, `fc_…_1`.

    `chat_id` is what the provider gave; where it gave none, the ids are a digest of `said`, the bytes it sent.
    """

    __slots__ = ("_base",)

    def __init__(self, chat_id: Any, said: bytes) -> None:
        given = chat_id.removeprefix("chatcmpl-") if type(chat_id) is str else ""
        self._base = given[:_MAX_ID] or blake2b(said, digest_size=12).hexdigest()

    @property
    def response(self) -> str:
        return f"resp_{self._base}"

    def item(self, kind: str, output_index: int) -> str:
        """The id of an output item; `kind` is its prefix: `msg`, `rs`, `fc` or `ctc`."""
        return f"{kind}_{self._base}_{output_index}"


_MAX_ID = 100


def begun(request: dict[str, Any], ids: Ids, chat: dict[str, Any]) -> dict[str, Any]:
    """A response in progress to the request `request`; `chat` is the chat completion, or its first chunk.

    Parameters that the request leaves out are told by their default, or as null where the default is the provider's.
    """
    created, model, tier = chat.get("created"), chat.get("model"), chat.get("service_tier")
    reasoning, text = request.get("reasoning"), request.get("text")
    response: dict[str, Any] = {
        "id": ids.response,
        "object": "response",
        "created_at": created if type(created) is int else 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model if type(model) is str and model else request.get("model", ""),
        "output": [],
        "reasoning": {"effort": None, "summary": None} | (reasoning if type(reasoning) is dict else {}),
        "store": False,
        "text": {"format": {"type": "text"}} | (text if type(text) is dict else {}),
        "usage": None,
    }
    for field, default in _ECHOED.items():
        value = request.get(field)
        response[field] = default if value is None else value
    if type(tier) is str and tier in CHAT_TIERS:
        response["service_tier"] = tier
    return response


_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


def ending(finish_reason: Any) -> dict[str, Any]:
    """Status and incomplete details for a chat's finish reason.

    Raises Untranslatable for an answer that did not end, or in an error.
    """
    if type(finish_reason) is not str or not finish_reason:
        raise Untranslatable("it has no finish reason")
    if finish_reason == "error":
        raise Untranslatable("it ended in an error")
    reason = _INCOMPLETE.get(finish_reason)
    if reason is not None:
        return {"status": "incomplete", "incomplete_details": {"reason": reason}}
    return {"status": "completed", "incomplete_details": None}


def mark_incomplete(response: dict[str, Any]) -> None:
    """Of an incomplete response, the item that broke off is incomplete, too: the last."""
    if response["status"] == "incomplete" and response["output"] and "status" in response["output"][-1]:
        response["output"][-1]["status"] = "incomplete"


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def usage(reported: Any) -> dict[str, Any] | None:
    """A chat's `usage` as Responses tells it; None where it has none. Counts that are no counts are left out."""
    if type(reported) is not dict:
        return None
    inputs, outputs = count(reported, "prompt_tokens"), count(reported, "completion_tokens")
    of_input, of_output = reported.get("prompt_tokens_details"), reported.get("completion_tokens_details")
    return {
        "input_tokens": inputs,
        "input_tokens_details": {
            "cached_tokens": count(of_input, "cached_tokens"),
            "cache_write_tokens": count(of_input, "cache_write_tokens"),
        },
        "output_tokens": outputs,
        "output_tokens_details": {"reasoning_tokens": count(of_output, "reasoning_tokens")},
        "total_tokens": inputs + outputs,
    }


def count(holder: Any, field: str) -> int:
    """A count of tokens; 0 where `holder` has none."""
    value = holder.get(field) if type(holder) is dict else None
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else 0
