"""What ends an answer: its stop reason, usage and call ids, in the Messages API's words for a chat provider's."""

import re
from typing import Any

from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai.usage import token_usage

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    # Vendors' own names: Together, Mistral.
    "eos": "end_turn",
    "model_length": "max_tokens",
}


def stop(finish: str, sequence: str | None, *, calls: bool, refused: bool) -> dict[str, str | None]:
    """The fields `stop_reason` and `stop_sequence` for `finish`, one of STOP_REASONS, and what `stop_sequence` found.

    Whether there are calls to make decides, not whether the finish reason says so: some vendors say `stop`.
    """
    reason = "refusal" if refused else STOP_REASONS[finish]
    if reason in ("end_turn", "tool_use"):
        reason = "tool_use" if calls else "end_turn"
    if reason == "end_turn" and sequence is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": sequence}
    return {"stop_reason": reason, "stop_sequence": None}


def stop_sequence(choice: dict[str, Any]) -> str | None:
    """The stop sequence that ended `choice`, where the vendor tells: vLLM in `stop_reason`, SGLang in `matched_stop`.
    Both put a token's number there for the model's own end."""
    for field in ("stop_reason", "matched_stop"):
        told = choice.get(field)
        if type(told) is str and told and choice.get("finish_reason") == "stop":
            return told
    return None


def message_usage(reported: Any) -> dict[str, Any]:
    """The `usage` of a message. Chat's count of input includes what the prompt cache held, a message's does not.

    Zeros where nothing was reported: a message cannot do without.
    """
    usage = token_usage(reported) or TokenUsage()
    cached = min(usage.cached_input, usage.input)
    written = min(usage.cache_write, usage.input - cached)
    told: dict[str, Any] = {
        "input_tokens": usage.input - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told


class CallIds:
    """Gives each tool call of an answer an id of its own: the provider's where it is one, else one that is made of the
    answer's. The client sends it back with the result."""

    __slots__ = ("_answer", "_given", "_number")

    def __init__(self, answer: Any) -> None:
        self._answer = _NOT_IN_IDS.sub("_", answer)[-24:] if type(answer) is str else ""
        self._given: set[str] = set()
        self._number = 0

    def next(self, told: Any) -> str:
        """The id of the next call, of which the provider told the id `told`, or something else."""
        id_ = told if type(told) is str and told and told not in self._given else None
        while id_ is None or id_ in self._given:
            id_ = f"call_{self._answer}_{self._number}"
            self._number += 1
        self._given.add(id_)
        return id_


_NOT_IN_IDS = re.compile("[^A-Za-z0-9_-]")


def citations(message: dict[str, Any]) -> list[dict[str, Any]]:
    """What a chat message (or delta) says about the sources of its text, as citations of a text block.

    Pages that were found become results of a search; `citations` are a Messages provider's own, told through a chat.
    """
    found = []
    told = message.get("citations")
    if type(told) is list:
        found += [citation for citation in told if type(citation) is dict and type(citation.get("type")) is str]
    annotations = message.get("annotations")
    for annotation in annotations if type(annotations) is list else ():
        page = annotation.get("url_citation") if type(annotation) is dict else None
        if type(page) is dict and type(page.get("url")) is str:
            title, quoted = page.get("title"), page.get("content")
            found.append(
                {
                    "type": "web_search_result_location",
                    "url": page["url"],
                    "title": title if type(title) is str else None,
                    "cited_text": quoted if type(quoted) is str else "",
                    "encrypted_index": "",
                }
            )
    return found
