"""Puts the engine of look-ups by meaning together: the embedder and the store of vectors that the configuration names.

What it imports takes a quarter of a second and 70 MiB: import this module in a thread, when the socket listens.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import lmdb

from watchllm.configuration import Configuration
from watchllm.proxy.semantic.warming import CannotLoad
from watchllm.stores.lmdb.environment import StoreBroken
from watchllm.stores.lmdb.vectors import LmdbVectorStore

if TYPE_CHECKING:
    from watchllm.cache.semantic.engine import Engine
    from watchllm.wire.client import ClientPool

VECTORS_FOLDER = "vectors"


def open_engine(configuration: Configuration, pool: "Callable[[], ClientPool]") -> "Engine":
    """Load the embedder and open the vectors, which are made if they are missing. `pool`: the event loop's, for an
    embedder that is called. Raises CannotLoad."""
    try:
        from watchllm.cache.semantic.engine import Engine
        from watchllm.compose.cross_encoder import open_cross_encoding
        from watchllm.compose.embedder import open_embedder
    except ImportError as error:
        raise CannotLoad(f"a library is missing ({error}); install the dependencies anew") from error
    try:
        embedder = open_embedder(configuration, pool)
        reading = open_cross_encoding(configuration)
        store = open_vectors(configuration)
    except (StoreBroken, lmdb.Error, OSError) as error:
        raise CannotLoad(str(error)) from error
    return Engine(embedder, store, max_entries=configuration.semantic_max_in_memory, cross_encoding=reading)


def open_vectors(configuration: Configuration) -> LmdbVectorStore:
    """The vectors of this home. Raises StoreBroken."""
    return LmdbVectorStore.open(
        os.path.join(configuration.directory, VECTORS_FOLDER),
        max_bytes=configuration.semantic_max_bytes,
        max_per_project=configuration.semantic_max_per_project,
        max_per_source=configuration.semantic_max_per_key,
        now_ms=_now_ms,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
