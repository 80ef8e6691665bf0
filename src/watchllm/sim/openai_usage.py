"""Token counts and log-probabilities in OpenAI's shapes."""

from hashlib import blake2b
from typing import Any

from watchllm.sim.knobs import Knobs


def usage_of(prompt_tokens: int, completion_tokens: int, knobs: Knobs) -> dict[str, Any]:
    """The `usage` object of a chat or text completion."""
    completion_tokens += knobs.reasoning
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": min(knobs.cached, prompt_tokens), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": knobs.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def logprob_entries(tokens: list[str], top: int) -> list[dict[str, Any]]:
    """One entry for each token, with `top` alternatives of falling probability, the token itself first."""
    entries = []
    for token in tokens:
        entry = _entry(token, token_logprob(token))
        entry["top_logprobs"] = [_entry(other, logprob) for other, logprob in alternatives(token, top)]
        entries.append(entry)
    return entries


def token_logprob(token: str) -> float:
    """A log-probability between -1 and 0 that depends only on the token."""
    return -int.from_bytes(blake2b(token.encode(), digest_size=2).digest(), "big") / 65_536


def alternatives(token: str, top: int) -> list[tuple[str, float]]:
    """The token itself and `top` - 1 less likely ones."""
    first = token_logprob(token)
    return [(token if rank == 0 else f"{token}{rank}", first - rank) for rank in range(top)]


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
