"""What paths that are passed through are called in the log, and which of them may cost something."""

import pytest

from watchllm.domain.billable import is_billable
from watchllm.domain.errors import NotFound
from watchllm.providers.endpoints import ENDPOINTS
from watchllm.proxy import paths


@pytest.mark.parametrize(
    ("method", "path", "name", "billed", "costs"),
    [
        (b"POST", b"/v1/audio/speech", "audio", True, True),
        (b"POST", b"/v1/images/generations", "images", True, True),
        (b"POST", b"/v1/moderations", "moderations", True, True),
        (b"POST", b"/v1/responses/compact", "responses", True, True),
        (b"POST", b"/v1/responses/input_tokens", "responses.objects", False, False),
        (b"GET", b"/v1/responses/resp_1", "responses.objects", False, False),
        (b"HEAD", b"/v1/responses/resp_1", "responses.objects", False, False),
        (b"DELETE", b"/v1/responses/resp_1", "responses.objects", False, False),
        (b"POST", b"/v1/responses/resp_1/cancel", "responses.objects", False, False),
        (b"POST", b"/v1/RESPONSES/resp_1/cancel", "responses.objects", False, False),
        (b"POST", b"/v1/messages/batches", "messages.objects", False, True),
        (b"GET", b"/v1/chat/completions/chatcmpl-1", "chat", False, False),
        (b"POST", b"/v1/chat/completions/chatcmpl-1", "chat", False, False),
        (b"GET", b"/v1/audio/speech", "audio.objects", False, True),  # where models answer, nothing is only looked at
        (b"POST", b"/v1/files", "files", False, False),
        (b"POST", b"/v1/FILES", "files", False, True),
        (b"POST", b"/v1/batches", "batches", False, True),
        (b"PATCH", b"/v1/batches/batch_1", "batches", False, True),
        (b"POST", b"/v1/threads/thread_1/runs", "threads", False, True),
        (b"POST", b"/v1/cancel/work", "cancel", False, True),
    ],
)
def test_a_path_is_named_billed_and_held_to_budgets(
    method: bytes, path: bytes, name: str, billed: bool, costs: bool
) -> None:
    assert paths.checked(path, method) == name
    assert is_billable(name, "openai", 200) is billed
    assert paths.may_cost(path, method) is costs


@pytest.mark.parametrize("path", [b"/v1/batches", b"/v1/messages/batches", b"/v1/Threads/runs", b"/v1/realtime/calls"])
def test_work_that_is_done_later_is_known_wherever_it_is_named(path: bytes) -> None:
    assert paths.is_done_later(path)
    assert not paths.is_done_later(b"/v1/rerank")


@pytest.mark.parametrize("path", [*(f"/v1{endpoint.path}" for endpoint in ENDPOINTS), "/v1/feedback"])
def test_what_the_gateway_answers_itself_is_not_passed_through_in_other_letters(path: str) -> None:
    first, last = path.upper().replace("/V1", "/v1"), path[:-1] + path[-1].upper()
    for written in (first, last):
        for method in (b"POST", b"GET"):
            with pytest.raises(NotFound) as refused:
                paths.checked(written.encode(), method)
            assert path in str(refused.value), "it is told how it is written"
