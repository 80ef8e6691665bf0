"""OpenAI Responses as a dialect."""

from typing import Any

from watchllm.providers.dialect import RESPONSES, Dialect
from watchllm.providers.responses.assemble import StreamAssembler
from watchllm.providers.responses.errors import error_body, error_event
from watchllm.providers.responses.replay import replay
from watchllm.providers.responses.storable import judge


def _assembler(document: dict[str, Any]) -> StreamAssembler:
    """No field of the request says anything that the stream does not."""
    return StreamAssembler()


DIALECT = Dialect(
    name=RESPONSES,
    path="/responses",
    judge=judge,
    assembler=_assembler,
    replay=replay,
    error_body=error_body,
    error_event=error_event,
)
