"""What `POST /v1/messages/count_tokens` answers for providers that cannot count."""

import base64
from typing import Any

import pytest
from hypothesis import given

from tests.unit.providers.translation.message_requests import EVERYTHING
from tests.unit.providers.translation.replaced import replaced
from watchllm.domain.errors import BadRequest
from watchllm.providers import tokens
from watchllm.providers.translation.count_tokens import count_tokens
from watchllm.providers.translation.request_messages_to_chat import translate

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How tall is the Eiffel Tower?"}]}
TOOL = {"name": "weather", "description": "Tells the weather of a city", "input_schema": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"height in metres": {"type": "number"}}}


def test_counts_what_the_chat_request_would_have() -> None:
    document = ASKED | {"system": "Be brief.", "tools": [TOOL]}
    assert count_tokens(document) == tokens.estimate_request(translate(document).document)
    assert 10 <= count_tokens(ASKED) <= 20


@pytest.mark.parametrize(
    "more",
    [
        {"system": "Answer in metres."},
        {"tools": [TOOL]},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"messages": [*ASKED["messages"], {"role": "assistant", "content": "It is"}]},
    ],
)
def test_all_that_goes_to_the_model_counts(more: dict[str, Any]) -> None:
    assert count_tokens(ASKED | more) > count_tokens(ASKED)


def with_document(source: dict[str, Any]) -> int:
    return count_tokens({"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]})


def test_documents_count() -> None:
    text = "The tower is 330 metres tall. " * 50
    plain = with_document({"type": "text", "media_type": "text/plain", "data": text})
    assert plain == pytest.approx(tokens.estimate(text), rel=0.05)
    page = base64.b64encode(bytes(45_000)).decode()
    pdf = {"type": "base64", "media_type": "application/pdf"}
    assert 1500 <= with_document(pdf | {"data": page}) <= 3000
    assert with_document(pdf | {"data": page * 10}) > 15_000


def test_a_text_file_that_is_none_counts_by_its_size() -> None:
    file = {"type": "file", "file": {"file_data": "data:text/plain;base64," + "/" * 4001}}
    assert 900 <= tokens.estimate_request({"messages": [{"role": "user", "content": [file]}]}) <= 1100


def test_what_cannot_be_translated_is_refused_by_its_name() -> None:
    with pytest.raises(BadRequest) as refusal:
        count_tokens(ASKED | {"tools": [{"type": "web_search_20250305", "name": "web_search"}]})
    assert refusal.value.param == "tools[0]"


@given(replaced(EVERYTHING))
def test_whatever_comes_is_counted_or_refused(document: Any) -> None:
    if type(document) is not dict:
        return
    try:
        count = count_tokens(document)
    except BadRequest:
        return
    assert count > 0
