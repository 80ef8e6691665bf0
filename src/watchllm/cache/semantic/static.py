"""The embedded default embedder: one fixed vector a word piece, averaged (wordllama's 256-d weights).

Works offline and costs about 20 µs for a usual prompt. Only the data of the package `wordllama` is used: its loader
looks for a download where its own files are not at the place it expects, and importing it loads modules of no use here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy
from tokenizers import Tokenizer

from watchllm.cache.semantic.embedder import EmbedderUnavailable

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_TENSOR = "embedding.weight"

# What bounds the time a prompt takes, whatever it holds: a character of an unknown script is four tokens.
_MOST_BYTES = 4_096
_MOST_TOKENS = 1_024
_MOST_HEADER_BYTES = 1 << 20


class StaticEmbedder:
    """The port `Embedder` on static vectors. Case is ignored. Of a prompt beyond 4 KiB (UTF-8) or 1,024 tokens only the
    beginning and the end count, half each: vectors find candidates, they decide nothing.

    Not made with `StaticEmbedder()`: use `load`.
    """

    name = "static"

    def __init__(
        self, weights: numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float16]], tokenizer: Tokenizer
    ) -> None:
        # Kept as float16, as they are shipped: converting all would cost 16 MiB, converting a prompt's costs 10 µs.
        self._weights = weights
        self._tokenizer = tokenizer
        self._last = len(weights) - 1
        self.dimensions = weights.shape[1]
        self.version = "l2_supercat_256-1"

    @classmethod
    def load(cls) -> StaticEmbedder:
        """Read the files that the package `wordllama` brings: about 50 ms and 20 MiB; weights come as they are used.

        Raises EmbedderUnavailable.
        """
        folder = _package_folder()
        try:
            weights = _weights(folder / _WEIGHTS)
            tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        except (OSError, ValueError) as error:
            raise EmbedderUnavailable(_advice(f"{folder}: {error}")) from error
        except Exception as error:  # The tokenizer's reader raises nothing more special.
            raise EmbedderUnavailable(_advice(f"{folder / _TOKENIZER}: {error}")) from error
        # It would remember ten thousand prompts, a few KiB each, and none of them comes again.
        tokenizer.model._resize_cache(0)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(weights, tokenizer)

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = numpy.zeros((len(texts), self.dimensions), numpy.float32)
        for row, text in enumerate(texts):
            tokens = self._tokens(text)
            if not tokens:
                continue
            vector = self._weights.take(tokens, 0, mode="clip").sum(0, dtype=numpy.float32)
            length = float(numpy.dot(vector, vector)) ** 0.5
            if length > 0:
                numpy.divide(vector, length, out=vectors[row])
        return vectors

    def _tokens(self, text: str) -> list[int]:
        shortened = _shortened(text).strip().lower()
        if not shortened:
            return []
        tokens = self._tokenizer.encode_batch_fast([shortened], add_special_tokens=False)[0].ids
        if len(tokens) > _MOST_TOKENS:
            half = _MOST_TOKENS // 2
            return tokens[:half] + tokens[-half:]
        return tokens


def _weights(path: Path) -> numpy.ndarray[tuple[int, int], numpy.dtype[numpy.float16]]:
    """The tensor of a safetensors file, mapped and not read: only the vectors of words that come take memory, and all
    processes share it. The format: a length of 8 bytes, so much JSON that says where each tensor is, then the tensors.

    Raises ValueError or OSError.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, _MOST_HEADER_BYTES))
    try:
        tensor = _decode(header)[_TENSOR]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
        raise ValueError(f"{path} has no tensor {_TENSOR}") from error
    if tensor.dtype != "F16":
        raise ValueError(f"the tensor {_TENSOR} of {path} is of {tensor.dtype}, not F16")
    mapped = numpy.memmap(path, numpy.float16, "r", 8 + length + tensor.data_offsets[0], tensor.shape)
    return numpy.asarray(mapped)


_Size = Annotated[int, msgspec.Meta(ge=1)]
_Offset = Annotated[int, msgspec.Meta(ge=0)]


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[_Size, _Size]
    data_offsets: tuple[_Offset, _Offset]


_decode = msgspec.json.Decoder(dict[str, _Tensor]).decode


def _shortened(text: str) -> str:
    """The text, or its beginning and its end; without lone surrogates, which the tokenizer refuses."""
    half = _MOST_BYTES // 2
    if len(text) > _MOST_BYTES:
        text = text[:half] + text[-half:]
    if text.isascii():
        return text
    data = text.encode(errors="replace")
    if len(data) > _MOST_BYTES:
        data = data[:half] + data[-half:]
    return data.decode(errors="ignore")


def _package_folder() -> Path:
    spec = find_spec("wordllama")  # Finds it without running it.
    if spec is None or not spec.submodule_search_locations:
        raise EmbedderUnavailable(_advice("the package wordllama is not installed"))
    return Path(spec.submodule_search_locations[0])


def _advice(problem: str) -> str:
    return f"the static embedder cannot be loaded: {problem}. Install the dependencies anew (wordllama brings its data)"
