"""The messages dialect, as the proxy knows it."""

from watchllm.providers.anthropic.assemble import StreamAssembler
from watchllm.providers.anthropic.errors import error_body, error_event
from watchllm.providers.anthropic.replay import replay
from watchllm.providers.anthropic.storable import judge
from watchllm.providers.dialect import MESSAGES, Dialect

# What was asked for changes nothing about how a message is read: there is always one.
DIALECT = Dialect(
    name=MESSAGES,
    path="/messages",
    judge=lambda body, _document: judge(body),
    assembler=lambda _document: StreamAssembler(),
    replay=replay,
    error_body=error_body,
    error_event=error_event,
)
