"""Limits as the database keeps them: JSON, without what is not set, so that a changed default reaches old rows."""

import msgspec

from watchllm.domain.limits import Limits

_decoder = msgspec.json.Decoder(Limits)


def encoded(limits: Limits) -> str:
    return msgspec.json.encode(limits).decode()


def decoded(text: str) -> Limits:
    return _decoder.decode(text)
