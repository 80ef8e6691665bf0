"""OpenAI's chat completions as a dialect."""

from __future__ import annotations

from functools import partial
from typing import Any

from watchllm.providers.dialect import CHAT, Dialect, Verdict
from watchllm.providers.openai.asks import expected_choices
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.errors import error_body, error_event
from watchllm.providers.openai.replay import replay
from watchllm.providers.openai.storable import judge


def _judge(body: bytes, document: dict[str, Any]) -> Verdict:
    return judge("generate", body, expected=expected_choices(document))


def _assembler(document: dict[str, Any]) -> StreamAssembler:
    return StreamAssembler("generate", choices=expected_choices(document) or 1)


DIALECT = Dialect(CHAT, "/chat/completions", _judge, _assembler, partial(replay, "generate"), error_body, error_event)
