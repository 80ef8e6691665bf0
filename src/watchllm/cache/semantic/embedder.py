"""The port of what turns prompts into vectors.

Importing this module loads no library. An adapter loads its own when it is made, which takes a tenth of a second and
more: after the socket listens, and in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[numpy.float32]
    """One vector, shape (dimensions,), or several, shape (n, dimensions)."""


class EmbedderUnavailable(Exception):
    """An embedder cannot be loaded or does not answer; the message says what is missing and what to do."""


class Embedder(Protocol):
    """`name` and `version` together say which vectors may be compared: both are part of a partition's identity.

    `dimensions` is the length of every vector. A call with one prompt takes well under 2 ms whatever the prompt, so
    that it may be made on the event loop; what takes longer is `Awaited`.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, shape (len(texts), dimensions); zeros for a text with nothing to embed, which is like no
        other. Raises EmbedderUnavailable."""
        ...
