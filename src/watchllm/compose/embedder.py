"""The embedder that the configuration names: static vectors, an endpoint's, or a model's that runs in a thread here.

As heavy as what it loads: import this module in a thread, when the socket listens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from watchllm.cache.semantic.awaited import Awaited, NotEmbedded
from watchllm.cache.semantic.embedder import Embedder, EmbedderUnavailable
from watchllm.configuration import Configuration
from watchllm.proxy.semantic.warming import CannotLoad

if TYPE_CHECKING:
    from watchllm.proxy.semantic.endpoint import EmbeddingEndpoint
    from watchllm.wire.client import ClientPool

MODELS_FOLDER: Final = "models"
_OPENAI: Final = "https://api.openai.com/v1"


def open_embedder(configuration: Configuration, pool: Callable[[], ClientPool]) -> Embedder | Awaited:
    """Load it, or ask it for the length of its vectors. `pool`: the event loop's, for calls. Raises CannotLoad."""
    kind, _, model = configuration.embedder.partition(":")
    try:
        if kind == "openai":
            return _at_endpoint(configuration, pool)
        if kind == "fastembed":
            from watchllm.cache.semantic.onnx import load

            folder = os.path.join(configuration.directory, MODELS_FOLDER)
            return load(model, folder, seconds=configuration.embedder_timeout)
        from watchllm.cache.semantic.static import StaticEmbedder

        return StaticEmbedder.load()
    except EmbedderUnavailable as error:
        raise CannotLoad(str(error)) from error


def endpoint_of(configuration: Configuration) -> EmbeddingEndpoint:
    """The endpoint that `openai:MODEL[@BASE_URL]` names. The instance's key of OpenAI goes only to where that is used
    anyhow, never to a base URL that is named here. Raises ValueError."""
    from watchllm.proxy.semantic.endpoint import EmbeddingEndpoint

    name = configuration.embedder.partition(":")[2]
    model, at, place = name.partition("@")
    api_key = configuration.embedder_api_key
    if at:
        return EmbeddingEndpoint(place, model, api_key or "", configuration.embedder_dimensions)
    provider = configuration.instance_providers.get("openai")
    base_url = (provider.base_url if provider else None) or _OPENAI
    api_key = api_key or (provider.api_key if provider else None)
    return EmbeddingEndpoint(base_url, model, api_key or "", configuration.embedder_dimensions)


def _at_endpoint(configuration: Configuration, pool: Callable[[], ClientPool]) -> Awaited:
    from watchllm.proxy.semantic.endpoint import awaited, probed

    try:
        endpoint = endpoint_of(configuration)
    except ValueError as error:
        raise EmbedderUnavailable(str(error)) from error
    dimensions = endpoint.dimensions
    if dimensions is None:
        try:
            dimensions = asyncio.run(probed(endpoint, configuration.proxy_env))
        except NotEmbedded as error:
            raise CannotLoad(f"the embedder openai:{endpoint.model}: {error}", passes=True) from error
    return awaited(endpoint, dimensions, pool, seconds=configuration.embedder_timeout)
