"""Whether the embedder that is configured can be had. Loads no model, and asks an endpoint for one vector."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec

from watchllm.compose.checks import FAILED, OK, Check
from watchllm.configuration import Configuration

_ADVICE = "correct WATCHLLM_EMBEDDER and its kin, or unset them for the embedded static vectors"


def examine_embedder(configuration: Configuration) -> Iterator[Check]:
    """Nothing for the static one, which needs nothing."""
    kind, _, model = configuration.embedder.partition(":")
    if kind == "openai":
        yield _endpoint(configuration)
    elif kind == "fastembed":
        yield _model(model)


def _endpoint(configuration: Configuration) -> Check:
    from watchllm.cache.semantic.awaited import NotEmbedded
    from watchllm.compose.embedder import endpoint_of
    from watchllm.proxy.semantic.endpoint import probed

    try:
        endpoint = endpoint_of(configuration)
        dimensions = asyncio.run(probed(endpoint, configuration.proxy_env))
    except (ValueError, NotEmbedded) as error:
        return Check("embedder", FAILED, f"look-ups by meaning are misses: {error}", _ADVICE)
    return Check("embedder", OK, f"{endpoint.model} gives vectors of {dimensions} numbers")


def _model(model: str) -> Check:
    if find_spec("fastembed") is None:
        return Check("embedder", FAILED, "fastembed is not installed", "pip install 'watchllm[fastembed]'")
    from watchllm.cache.semantic.onnx import missing_in

    missing = missing_in(model)
    if missing:
        return Check("embedder", FAILED, f"look-ups by meaning are misses: {missing}", _ADVICE)
    return Check("embedder", OK, f"fastembed runs {model}, which it fetches when it has not yet")
