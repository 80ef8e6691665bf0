"""Figures of the semantic cache's parts."""

import watchllm.cache.semantic  # noqa: F401  (sets the libraries' switches, as in the proxy, before one of them is loaded)
