"""Cross-encoders in ONNX: of a folder, run by `onnxruntime`, or of a name that `fastembed` knows (both are extras)."""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy

from watchllm.cache.semantic.cross_encoder import CrossEncoder, CrossEncoderUnavailable
from watchllm.cache.semantic.onnx import missing_in, model_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastembed.rerank.cross_encoder import TextCrossEncoder
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

_TOKENIZER_FILE: Final = "tokenizer.json"
# One core: the others are for requests.
_THREADS: Final = 1
_MOST_TOKENS: Final = 512
_NO_BOUND: Final = 1_000_000
"""What says how much a model reads says at least so much where it does not know."""
_ERRORS_ONLY: Final = 3
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_PROBED: Final = "What is it?"


def load(model: str, cache_folder: str) -> CrossEncoder:
    """Load the model in the folder `model`: `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`; `config.json` and
    `tokenizer_config.json`, where they are there, may say how many tokens it reads. Or load the one of that name, which
    is fetched into `cache_folder` where it is not there yet.

    It gives one number for a pair (the higher, the more alike), or two: for different and for equal. Raises
    CrossEncoderUnavailable.
    """
    if missing := missing_of(model):
        raise CrossEncoderUnavailable(f"the cross-encoder {model}: {missing}")
    folder = Path(model).expanduser()
    try:
        encoder = _of_folder(folder) if folder.is_dir() else _of_name(model, cache_folder)
        encoder.logit(_PROBED, _PROBED)
    except ImportError as error:
        package, extra = ("onnxruntime", "cross-encoder") if folder.is_dir() else ("fastembed", "fastembed")
        raise CrossEncoderUnavailable(
            f"the cross-encoder {model} needs {package} ({error}); install it: pip install 'watchllm[{extra}]'"
        ) from error
    except CrossEncoderUnavailable:
        raise
    except Exception as error:  # Whatever the runtimes and fastembed's downloads raise.
        raise CrossEncoderUnavailable(
            f"the cross-encoder {model} cannot be loaded ({type(error).__name__}: {str(error)[:200]}); name a folder "
            "that holds one, or a model that fastembed knows and that can be downloaded"
        ) from error
    return encoder


def missing_of(model: str) -> str | None:
    """What the folder `model` lacks, or None; of the name of a model, nothing is known before it is loaded."""
    missing = missing_in(model)
    folder = Path(model).expanduser()
    if missing is None and folder.is_dir() and not (folder / _TOKENIZER_FILE).is_file():
        return f"the folder {folder} has no {_TOKENIZER_FILE}"
    return missing


class _InFolder:
    def __init__(self, version: str, session: InferenceSession, tokenizer: Tokenizer, most_tokens: int) -> None:
        self.version = version
        self._session = session
        self._tokenizer = tokenizer
        self._most_tokens = most_tokens
        self._inputs = [one.name for one in session.get_inputs()]
        if unknown := [name for name in self._inputs if name not in _INPUTS]:
            raise CrossEncoderUnavailable(f"the cross-encoder wants {unknown[0]!r}; known are {', '.join(_INPUTS)}")

    def logit(self, stored: str, asked: str) -> float | None:
        encoding = self._tokenizer.encode(stored, asked)
        if len(encoding.ids) > self._most_tokens:
            return None
        known = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        given = {name: numpy.array([known[name]], numpy.int64) for name in self._inputs}
        return _one_number(numpy.asarray(self._session.run(None, given)[0]).reshape(-1).tolist())


class _ByName:
    def __init__(self, name: str, encoder: TextCrossEncoder) -> None:
        self.version = name
        self._encoder = encoder

    def logit(self, stored: str, asked: str) -> float | None:
        # fastembed cuts what is too long, and does not say so.
        if self._encoder.model.tokenizer.encode(stored, asked).overflowing:
            return None
        return _one_number([float(score) for score in self._encoder.rerank_pairs([(stored, asked)])])


def _of_folder(folder: Path) -> _InFolder:
    from onnxruntime import InferenceSession, SessionOptions
    from tokenizers import Tokenizer

    name = model_file(folder)
    assert name is not None
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = _THREADS
    options.log_severity_level = _ERRORS_ONLY
    session = InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER_FILE))
    most_tokens = _most_tokens(folder, tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # The version is the content's: another model in the same place is another one.
    digest = blake2b(digest_size=16)
    for file in (*sorted((folder / name).parent.glob(f"{Path(name).name}*")), folder / _TOKENIZER_FILE):
        with file.open("rb") as content:
            while piece := content.read(1 << 20):
                digest.update(piece)
    return _InFolder(digest.hexdigest(), session, tokenizer, most_tokens)


def _of_name(name: str, cache_folder: str) -> _ByName:
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    return _ByName(name, TextCrossEncoder(name, cache_dir=cache_folder, threads=_THREADS, cuda=False))


def _one_number(numbers: Sequence[float]) -> float:
    """The log-odds of equal. Raises CrossEncoderUnavailable for a model of another kind, ValueError for no number."""
    if len(numbers) not in (1, 2):
        raise CrossEncoderUnavailable(
            f"the model gives {len(numbers)} numbers for a pair; a cross-encoder gives one, or two of which the second "
            "is for equal"
        )
    number = numbers[-1] - (numbers[0] if len(numbers) == 2 else 0.0)
    if not math.isfinite(number):
        raise ValueError("the model gave a number that is none")
    return float(number)


def _most_tokens(folder: Path, tokenizer: Tokenizer) -> int:
    """How many tokens the model reads of a pair, as the least of what is said about it."""
    said: list[Any] = [(tokenizer.truncation or {}).get("max_length")]
    for name, field in (("tokenizer_config.json", "model_max_length"), ("config.json", "max_position_embeddings")):
        if (folder / name).is_file():
            document = json.loads((folder / name).read_text(encoding="utf-8"))
            said.append(document.get(field) if isinstance(document, dict) else None)
    bounds = [int(most) for most in said if isinstance(most, (int, float)) and 0 < most < _NO_BOUND]
    return min(bounds, default=_MOST_TOKENS)
