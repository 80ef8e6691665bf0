"""Responses as OpenAI answers them, written by hand after the API reference ("Responses": the response object, and
"Streaming events"), and hypothesis strategies of what else could come."""

from typing import Any

from hypothesis import strategies as st

from tests.unit.providers.answers import texts, words

USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 123,
}


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_67ccd2bed1ec8190b14f964abc054267",
        "object": "response",
        "created_at": 1741476542,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-4.1-2025-04-14",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": USAGE,
        "user": None,
        "metadata": {},
    } | more


def text_part(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []} | more


def message(*parts: dict[str, Any], item_id: str = "msg_1", status: str = "completed") -> dict[str, Any]:
    return {"type": "message", "id": item_id, "status": status, "role": "assistant", "content": list(parts)}


CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_unLAR8MvFNptuiZK6K6HCy5k",
    "name": "get_current_weather",
    "arguments": '{"location":"Zürich","unit":"celsius"}',
    "status": "completed",
}
CUSTOM_CALL = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sql", "input": "SELECT 1"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "**Adding** up"}]}
CITATION = {"type": "url_citation", "start_index": 0, "end_index": 5, "url": "https://example.org/", "title": "Example"}


def token(word: str) -> dict[str, Any]:
    top = {"token": word, "bytes": list(word.encode()), "logprob": -0.25}
    return top | {"top_logprobs": [top]}


_text_parts = st.builds(
    lambda text, annotations, logprobs: {"type": "output_text", "text": text} | annotations | logprobs,
    texts,
    st.sampled_from([{"annotations": []}, {"annotations": [CITATION]}, {}]),
    st.sampled_from([{}, {"logprobs": []}, {"logprobs": [token("ab"), token(" c")]}]),
)
_parts = _text_parts | st.builds(lambda text: {"type": "refusal", "refusal": text}, texts)
_items = st.one_of(
    st.lists(_parts, max_size=3).map(lambda parts: {"type": "message", "role": "assistant", "content": parts}),
    st.builds(lambda name, text: CALL | {"name": name, "arguments": text}, words, texts),
    st.builds(lambda name, text: CUSTOM_CALL | {"name": name, "input": text}, words, texts),
    st.builds(
        lambda summary, content: {"type": "reasoning", "encrypted_content": "x"} | summary | content,
        st.lists(texts, max_size=2).map(
            lambda texts: {"summary": [{"type": "summary_text", "text": t} for t in texts]}
        ),
        st.sampled_from([{}, {"content": None}, {"content": [{"type": "reasoning_text", "text": "Hm"}]}]),
    ),
)
endings = st.sampled_from(
    [{"status": "completed"}, {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}]
)


@st.composite
def responses(draw: st.DrawFn) -> dict[str, Any]:
    """Any response that may be stored, or is empty."""
    items = draw(st.lists(_items, max_size=4))
    output = [item | {"id": f"item_{index}"} for index, item in enumerate(items)]
    return response(*output, **draw(endings), usage=draw(st.sampled_from([USAGE, None])))
