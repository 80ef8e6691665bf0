"""What tests of coalescing read of answers."""

import json
from typing import Any

from tests.support.raw_http import RawResponse


def events_of(answer: RawResponse) -> list[dict[str, Any]]:
    """The chunks of a streamed answer, which must end as OpenAI's do."""
    lines = [line[6:] for line in answer.body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]", answer.body[-300:]
    return [json.loads(line) for line in lines[:-1]]


def text_of(answer: RawResponse) -> str:
    """What the model said, in either form."""
    assert answer.status == 200, answer
    if (answer.header("content-type") or "").startswith("text/event-stream"):
        chunks = events_of(answer)
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return str(answer.json()["choices"][0]["message"]["content"])


def kinds(answers: list[RawResponse]) -> list[str]:
    return sorted(answer.header("x-watchllm-cache") or "" for answer in answers)


def error_code(answer: RawResponse) -> str:
    return str(answer.json()["error"]["code"])
