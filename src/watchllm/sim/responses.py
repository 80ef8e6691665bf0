"""`/responses` as OpenAI answers it: made, whole or streamed, kept, read again and deleted."""

import base64
from typing import Any

import msgspec

from watchllm.sim.answer import Ask, Choice, decide, think
from watchllm.sim.citation import CITED_TITLE, CITED_URL
from watchllm.sim.identifiers import call_id
from watchllm.sim.knobs import Knobs
from watchllm.sim.openai_usage import logprob_entries
from watchllm.sim.reply import Answer, Refused, Reply, Request
from watchllm.sim.responses_ask import ask_of, input_items
from watchllm.sim.responses_store import StoredResponses
from watchllm.sim.responses_stream import response_stream
from watchllm.sim.responses_validation import check_calls, check_response
from watchllm.sim.schema import UnsupportedSchema
from watchllm.sim.text import digest

_FAILURE = {"code": "server_error", "message": "The model failed to generate a response."}
_encode = msgspec.json.Encoder().encode


class Responses:
    """The Responses API over what it stored."""

    def __init__(self, stored: StoredResponses) -> None:
        self._stored = stored

    def create(self, request: Request) -> Answer:
        """Raises Refused."""
        fields, knobs = request.fields, request.knobs
        check_response(fields)
        items = input_items(fields.get("input"))
        if fields.get("previous_response_id") is not None:
            items = [*self._stored.continued(fields["previous_response_id"]), *items]
        check_calls(items)
        ask, prompt_tokens = ask_of(fields, items, request.name)
        try:
            choice = decide(ask, knobs)[0]
        except UnsupportedSchema as error:
            raise Refused(f"Invalid schema: {error}.", param="text.format.schema", code="invalid_json_schema") from None
        thoughts = think(ask, knobs) if _reasons(fields, knobs) else []
        response = _begun(request)
        if knobs.failed:
            done = {**response, "status": "failed", "error": _FAILURE}
        else:
            output = _output(choice, ask, thoughts, request)
            usage = None if knobs.no_usage else _usage(prompt_tokens, choice, thoughts, knobs)
            done = {**response, **_status(choice), "output": output, "usage": usage}
            done["completed_at"] = request.created if done["status"] == "completed" else None
        body = _encode(done)
        if response["store"]:
            self._stored.put(response["id"], body, items, done["output"])
        if fields.get("stream"):
            return response_stream(response, done, choice)
        return Reply(body)

    def get(self, request: Request) -> Answer:
        """The response as it was answered, or what led to it below `…/input_items`. Raises Refused."""
        response_id, _, part = request.tail.partition("/")
        if not part:
            return Reply(self._stored.body(response_id))
        if part != "input_items":
            raise Refused(f"Invalid URL (GET /v1/responses/{request.tail})", status=404)
        items = [
            {"id": f"item_{index}", "type": "message", **item}
            for index, item in enumerate(self._stored.items(response_id))
        ]
        items.reverse()
        first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
        return Reply(_encode({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": False}))

    def delete(self, request: Request) -> Answer:
        """Raises Refused."""
        self._stored.delete(request.tail)
        return Reply(_encode({"id": request.tail, "object": "response", "deleted": True}))


def _reasons(fields: dict[str, Any], knobs: Knobs) -> bool:
    reasoning = fields.get("reasoning") or {}
    return bool(knobs.reasoning) or (bool(reasoning) and reasoning.get("effort") != "none")


def _begun(request: Request) -> dict[str, Any]:
    """The response before anything is generated: it echoes the request's parameters."""
    fields = request.fields
    reasoning, text = fields.get("reasoning") or {}, fields.get("text") or {}
    store = fields.get("store")

    def given(name: str, default: Any) -> Any:
        value = fields.get(name)
        return default if value is None else value

    return {
        "id": f"resp_{request.run}{request.number:08d}",
        "object": "response",
        "created_at": request.created,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": fields.get("instructions"),
        "max_output_tokens": fields.get("max_output_tokens"),
        "max_tool_calls": fields.get("max_tool_calls"),
        "model": fields["model"],
        "output": [],
        "parallel_tool_calls": given("parallel_tool_calls", True),
        "previous_response_id": fields.get("previous_response_id"),
        "prompt_cache_key": fields.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": fields.get("safety_identifier"),
        "service_tier": "default",
        "store": store is not False,
        "temperature": given("temperature", 1.0),
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity") or "medium"},
        "tool_choice": given("tool_choice", "auto"),
        "tools": given("tools", []),
        "top_logprobs": given("top_logprobs", 0),
        "top_p": given("top_p", 1.0),
        "truncation": given("truncation", "disabled"),
        "usage": None,
        "user": fields.get("user"),
        "metadata": given("metadata", {}),
    }


def _status(choice: Choice) -> dict[str, Any]:
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(choice.finish)
    if reason is None or choice.refused:
        return {"status": "completed"}
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def _usage(prompt_tokens: int, choice: Choice, thoughts: list[str], knobs: Knobs) -> dict[str, Any]:
    cached = min(knobs.cached, prompt_tokens)
    output_tokens = choice.billed_tokens + len(thoughts)
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": min(knobs.cache_write, prompt_tokens - cached),
        },
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": len(thoughts)},
        "total_tokens": prompt_tokens + output_tokens,
    }


def _output(choice: Choice, ask: Ask, thoughts: list[str], request: Request) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = [_reasoning(ask, thoughts, request)] if thoughts else []
    if not choice.calls:
        return [*output, _message(choice, request)]
    for position, call in enumerate(choice.calls):
        made = f"{request.run}{request.number:08d}{position:02d}"
        called = {"status": "completed", "call_id": call_id("call_"), "name": call.name}
        if call.free:
            output.append({"id": f"ctc_{made}", "type": "custom_tool_call", **called, "input": call.arguments})
        else:
            output.append({"id": f"fc_{made}", "type": "function_call", **called, "arguments": call.arguments})
    return output


def _reasoning(ask: Ask, thoughts: list[str], request: Request) -> dict[str, Any]:
    fields = request.fields
    text = "".join(thoughts)
    summarized = (fields.get("reasoning") or {}).get("summary")
    item: dict[str, Any] = {
        "id": f"rs_{request.run}{request.number:08d}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if summarized else [],
    }
    if request.knobs.raw_reasoning:
        item["content"] = [{"type": "reasoning_text", "text": text}]
    if "reasoning.encrypted_content" in (fields.get("include") or ()):
        item["encrypted_content"] = base64.b64encode(digest(ask.seed, b"reasoning") * 2).decode()
    return item


def _message(choice: Choice, request: Request) -> dict[str, Any]:
    part: dict[str, Any]
    if choice.refused:
        part = {"type": "refusal", "refusal": choice.text}
    else:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": choice.text}
        if "message.output_text.logprobs" in (request.fields.get("include") or ()):
            part["logprobs"] = logprob_entries(choice.tokens, request.fields.get("top_logprobs") or 0)
        if request.knobs.cite:
            part["annotations"] = [
                {
                    "type": "url_citation",
                    "start_index": 0,
                    "end_index": len(choice.text),
                    "title": CITED_TITLE,
                    "url": CITED_URL,
                }
            ]
    incomplete = _status(choice)["status"] == "incomplete"
    return {
        "id": f"msg_{request.run}{request.number:08d}",
        "type": "message",
        "status": "incomplete" if incomplete else "completed",
        "role": "assistant",
        "content": [part],
    }
