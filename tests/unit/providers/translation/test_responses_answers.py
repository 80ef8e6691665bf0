"""Whole answers: chat completions as responses and back, read by the official client."""

import json
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from tests.unit.providers.answers import chat_answers, json_values
from tests.unit.providers.responses import responses as made
from tests.unit.providers.translation.chat_answers import (
    ANNOTATION,
    BLOCKS,
    CITATION,
    CUSTOM_CALL,
    TOKENS,
    TOOL_CALL,
    USAGE,
    answer,
)
from watchllm.providers.dialect import TranslatedAnswer, Untranslatable
from watchllm.providers.openai.storable import judge as judge_chat
from watchllm.providers.responses.storable import judge
from watchllm.providers.translation import answer_chat_to_responses, answer_responses_to_chat
from watchllm.providers.translation.request_responses_to_chat import translate as translate_request


def as_response(chat: Any, request: dict[str, Any] | None = None) -> tuple[dict[str, Any], bool]:
    translated = answer_chat_to_responses.translate(json.dumps(chat).encode(), request or {"model": "m"})
    return json.loads(translated.body), translated.exact


def as_chat(response: Any) -> tuple[dict[str, Any], bool]:
    translated = answer_responses_to_chat.translate(json.dumps(response).encode())
    return json.loads(translated.body), translated.exact


def test_what_was_said_becomes_a_message() -> None:
    chat = answer(content="Hello there", annotations=[ANNOTATION], logprobs={"content": TOKENS, "refusal": None})
    response, exact = as_response(chat)
    assert exact
    assert response["output"] == [
        {
            "id": "msg_B9MBs8_0",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "Hello there",
                    "annotations": [{"type": "url_citation"} | CITATION],
                    "logprobs": TOKENS,
                }
            ],
        }
    ]
    assert (response["id"], response["created_at"], response["model"]) == (
        "resp_B9MBs8", 1741569952, "gpt-4.1-2025-04-14",
    )  # fmt: skip
    assert (response["status"], response["incomplete_details"], response["error"]) == ("completed", None, None)
    assert response["service_tier"] == "default"
    assert response["usage"] == {
        "input_tokens": 19,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 29,
    }


def test_reasoning_refusal_and_calls_become_items_of_their_own() -> None:
    chat = answer(
        "tool_calls",
        reasoning_content="Hm, so",
        thinking_blocks=BLOCKS,
        refusal="I cannot help with that.",
        tool_calls=[TOOL_CALL, CUSTOM_CALL],
    )
    response, exact = as_response(chat)
    assert exact
    reasoning, message, call, custom = response["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm, so"}]
    assert message["content"] == [{"type": "refusal", "refusal": "I cannot help with that."}]
    assert (call["type"], call["call_id"], call["name"], call["arguments"]) == (
        "function_call", "call_1", "weather", TOOL_CALL["function"]["arguments"],  # type: ignore[index]
    )  # fmt: skip
    assert (custom["type"], custom["call_id"], custom["name"], custom["input"]) == (
        "custom_tool_call", "call_2", "sql", "SELECT 1",
    )  # fmt: skip
    assert len({item["id"] for item in response["output"]}) == 4


def test_signed_reasoning_comes_back_with_the_next_question() -> None:
    response, _ = as_response(answer("tool_calls", thinking_blocks=BLOCKS, content="Wait.", tool_calls=[TOOL_CALL]))
    result = {"type": "function_call_output", "call_id": "call_1", "output": "7 degrees"}
    question = {"role": "user", "content": "Weather?"}
    sent = translate_request({"model": "m", "input": [question, *response["output"], result]}).document
    assert sent["messages"][1:] == [
        {"role": "assistant", "content": "Wait.", "thinking_blocks": BLOCKS, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "7 degrees"},
    ]


@pytest.mark.parametrize(
    ("finish", "status", "reason", "exact"),
    [
        ("stop", "completed", None, True),
        ("tool_calls", "completed", None, True),
        ("length", "incomplete", "max_output_tokens", True),
        ("content_filter", "incomplete", "content_filter", True),
        ("eos", "completed", None, False),
    ],
)
def test_how_it_ended_is_told(finish: str, status: str, reason: str | None, exact: bool) -> None:
    response, is_exact = as_response(answer(finish, content="Hel"))
    assert (response["status"], is_exact) == (status, exact)
    assert (response["incomplete_details"] or {}).get("reason") == reason
    assert response["output"][0]["status"] == status


def test_the_parameters_of_the_request_are_echoed() -> None:
    request = {
        "model": "openai/gpt-4.1",
        "instructions": "Be brief.",
        "input": "Hi",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "max_output_tokens": 100,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}],
        "tool_choice": "required",
        "user": None,
    }
    response, _ = as_response(answer(content="Hello"), request)
    for field in ("instructions", "metadata", "temperature", "max_output_tokens", "tools", "tool_choice"):
        assert response[field] == request[field]
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert response["reasoning"] == {"effort": "low", "summary": None}
    assert (response["parallel_tool_calls"], response["top_p"], response["truncation"]) == (True, None, "disabled")
    assert (response["store"], response["previous_response_id"]) == (False, None)
    Response.model_validate(response)


@pytest.mark.parametrize(
    "chat",
    [
        [],
        {"error": {"message": "x"}},
        answer(None, content="Hi"),
        answer("error", content="Hi"),
        answer(content=3),
        answer(content=[{"type": "image"}]),
        answer(audio={"id": "a"}),
        answer(function_call={"name": "f", "arguments": ""}),
        answer(tool_calls={}),
        answer(tool_calls=[3]),
        answer(tool_calls=[{"id": "c"}]),
        answer(content="Hi") | {"choices": []},
        answer(content="Hi") | {"choices": answer()["choices"] * 2},
    ],
)
def test_what_has_no_form_as_a_response_is_refused(chat: Any) -> None:
    with pytest.raises(Untranslatable):
        as_response(chat)


@pytest.mark.parametrize("more", [{"annotations": [{"type": "file"}]}, {"annotations": 3}, {"citations": ["u"]}])
def test_what_gets_lost_is_told(more: dict[str, Any]) -> None:
    assert not as_response(answer(content="Hi") | {"choices": answer(content="Hi", **more)["choices"]})[1]


def test_malformed_log_probabilities_are_left_out() -> None:
    broken = [3, {"token": "x"}, TOKENS[0] | {"bytes": None, "top_logprobs": [{"token": "x"}, TOKENS[0]]}]
    response, exact = as_response(answer(content="Hello", logprobs={"content": broken}))
    (part,) = response["output"][0]["content"]
    assert part["logprobs"] == [TOKENS[0]]
    assert not exact


@pytest.mark.parametrize("call_id", [None, "", 3])
def test_calls_without_ids_are_told_apart(call_id: Any) -> None:
    response, _ = as_response(answer("tool_calls", tool_calls=[TOOL_CALL | {"id": call_id}] * 2))
    assert len({item["call_id"] for item in response["output"]}) == 2


def test_an_answer_without_an_id_gets_one_that_stays() -> None:
    chat = answer(content="Hi") | {"id": None}
    assert as_response(chat)[0]["id"] == as_response(chat)[0]["id"] != "resp_"


def test_a_response_becomes_one_message() -> None:
    response = made.response(
        made.REASONING,
        made.message(
            made.text_part("Hello there", annotations=[made.CITATION], logprobs=TOKENS),
            {"type": "refusal", "refusal": "No."},
        ),
        made.CALL,
        made.CUSTOM_CALL,
        service_tier="default",
    )
    chat, exact = as_chat(response)
    assert exact
    (choice,) = chat["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hello there",
        "refusal": "No.",
        "annotations": [ANNOTATION],
        "reasoning_content": "**Adding** up",
        "tool_calls": [
            {
                "id": made.CALL["call_id"],
                "type": "function",
                "function": {"name": made.CALL["name"], "arguments": made.CALL["arguments"]},
            },
            CUSTOM_CALL,
        ],
    }
    assert (choice["finish_reason"], choice["logprobs"]) == ("tool_calls", {"content": TOKENS, "refusal": None})
    assert (chat["id"], chat["created"]) == ("chatcmpl-67ccd2bed1ec8190b14f964abc054267", 1741476542)
    assert (chat["usage"]["prompt_tokens"], chat["usage"]["total_tokens"]) == (36, 123)
    assert chat["usage"]["completion_tokens_details"] == {"reasoning_tokens": 20}
    ChatCompletion.model_validate(chat, strict=True)


@pytest.mark.parametrize(
    "output",
    [
        [made.message(made.text_part("a"), made.text_part("b"))],
        [made.message(made.text_part("a")), {"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        [made.message(made.text_part("a")), made.REASONING | {"encrypted_content": "gAAAAA"}],
        [made.message(made.text_part("a", annotations=[{"type": "file_path", "file_id": "f", "index": 1}]))],
        [made.REASONING | {"content": [{"type": "reasoning_text", "text": "Raw"}]}, made.message(made.text_part("a"))],
    ],
)
def test_what_a_chat_has_no_place_for_is_not_exact(output: list[dict[str, Any]]) -> None:
    chat, exact = as_chat(made.response(*output))
    assert not exact
    assert chat["choices"][0]["message"]["content"].startswith("a")


def test_citations_of_a_second_text_keep_their_place_in_the_whole() -> None:
    parts = [made.text_part("abc"), made.text_part("Hello", annotations=[made.CITATION])]
    (annotation,) = as_chat(made.response(made.message(*parts)))[0]["choices"][0]["message"]["annotations"]
    assert annotation["url_citation"] == CITATION | {"start_index": 3, "end_index": 8}


@pytest.mark.parametrize(
    "response",
    [
        3,
        made.response(status="failed", error={"code": "server_error", "message": "x"}),
        made.response(made.message(made.text_part("a")), status="in_progress"),
        made.response(made.message(made.text_part("a")), status="incomplete"),
        made.response(3),  # type: ignore[arg-type]
        made.response(made.message({"type": "audio"})),
        made.response(made.CALL | {"name": None}),
        made.response() | {"output": {}},
    ],
)
def test_a_response_that_failed_or_is_malformed_is_refused(response: Any) -> None:
    with pytest.raises(Untranslatable):
        as_chat(response)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ({"code": "server_error", "message": "The model has crashed."}, "failed: The model has crashed"),
        ("no room", "failed: no room"),
        ({"code": "server_error"}, "failed: it gives no reason"),
        ({"message": ["x"]}, "failed: it gives no reason"),
    ],
)
def test_a_response_that_failed_says_why(error: Any, told: str) -> None:
    with pytest.raises(Untranslatable, match=told):
        as_chat(made.response(status="failed", error=error))


@given(chat_answers())
def test_what_is_exact_comes_back_as_it_was(chat: dict[str, Any]) -> None:
    try:
        response, exact = as_response(chat)
    except Untranslatable:
        return
    Response.model_validate(response)
    back, exact_back = as_chat(response)
    message, returned = chat["choices"][0]["message"], back["choices"][0]["message"]
    if not (exact and exact_back):
        return
    for field in ("content", "refusal", "tool_calls"):
        assert (returned.get(field) or None) == (message.get(field) or None)
    assert returned.get("reasoning_content") == (message.get("reasoning_content") or message.get("reasoning"))
    assert (
        judge_chat("generate", json.dumps(chat).encode()).storable == judge(json.dumps(response).encode(), {}).storable
    )
    usage = back.get("usage")
    assert (usage is None) == ("usage" not in chat)
    if usage is not None:
        assert usage["prompt_tokens"] == chat["usage"]["prompt_tokens"]
        assert usage["completion_tokens"] == chat["usage"]["completion_tokens"]


@given(made.responses())
def test_a_response_that_is_exact_comes_back_as_it_was(response: dict[str, Any]) -> None:
    chat, exact = as_chat(response)
    ChatCompletion.model_validate(chat)
    back, exact_back = as_response(chat)
    if exact and exact_back:
        assert back["status"] == response["status"]
        assert back["usage"] == response["usage"]
        said = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
        said_back = [part for item in back["output"] if item["type"] == "message" for part in item["content"]]
        texts = [part.get("text") or part.get("refusal") for part in said]
        assert sorted(filter(None, texts)) == sorted(part.get("text") or part["refusal"] for part in said_back)


def translated_or_refused(translate: Any, *given: Any) -> TranslatedAnswer | None:
    try:
        return translate(*given)  # type: ignore[no-any-return]
    except Untranslatable:
        return None


@given(
    json_values(), json_values(), st.sampled_from(["message", "choices", "tool_calls", "logprobs", "usage", "output"])
)
def test_any_json_is_translated_or_refused(value: Any, other: Any, place: str) -> None:
    chat = answer(content="Hi", tool_calls=[TOOL_CALL])
    choice = chat["choices"][0]
    message = choice["message"] | {place: value, "content": other}
    for form in (
        value,
        chat | {place: value},
        chat | {"choices": [choice | {place: value}]},
        chat | {"choices": [choice | {"message": message}]},
    ):
        body = json.dumps(form).encode()
        translated = translated_or_refused(answer_chat_to_responses.translate, body, {"model": "m"})
        assert translated is None or json.loads(translated.body)["object"] == "response"
    part = made.text_part("a") | {"annotations": value, "logprobs": other}
    for form in (
        value,
        made.response() | {place: value},
        made.response(made.CALL | {place: value}, value),
        made.response(made.message(part)),
    ):
        translated = translated_or_refused(answer_responses_to_chat.translate, json.dumps(form).encode())
        assert translated is None or json.loads(translated.body)["object"] == "chat.completion"


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_refused(body: bytes) -> None:
    for translate, given_with in (
        (answer_chat_to_responses.translate, ({"model": "m"},)),
        (answer_responses_to_chat.translate, ()),
    ):
        assert translated_or_refused(translate, body, *given_with) is None


class Weather(BaseModel):
    city: str
    degrees: int


def test_the_official_client_parses_structured_output() -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        chat = translate_request(asked).document
        assert chat["response_format"]["json_schema"]["strict"] is True
        said = json.dumps({"city": "Zürich", "degrees": 7})
        body = answer_chat_to_responses.translate(json.dumps(answer(content=said)).encode(), asked).body
        return httpx.Response(200, headers={"content-type": "application/json"}, content=body)

    with openai.OpenAI(
        api_key="k",
        base_url="http://provider.test/v1",
        http_client=httpx.Client(transport=httpx.MockTransport(provider)),
    ) as client:
        parsed = client.responses.parse(model="m", input="Weather in Zürich?", text_format=Weather)
    assert parsed.output_parsed == Weather(city="Zürich", degrees=7)
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == USAGE["total_tokens"]
