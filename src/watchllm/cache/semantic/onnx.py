"""Sentence models in ONNX, run by `fastembed` (an extra) in a thread: some milliseconds a prompt."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy

from watchllm.cache.semantic.awaited import FAILED, Awaited, Embedded, NotEmbedded
from watchllm.cache.semantic.embedder import EmbedderUnavailable

if TYPE_CHECKING:
    from fastembed import TextEmbedding

_MODEL_FILES: Final = ("model.onnx", "onnx/model.onnx")
_POOLING_FILE: Final = "1_Pooling/config.json"
# One core: the others are for requests.
_THREADS: Final = 1


def load(model: str, cache_folder: str, *, seconds: float) -> Awaited:
    """Load the model of that name, which is fetched into `cache_folder` where it is not there yet, or the one in the
    folder `model`: `model.onnx` (or `onnx/model.onnx`), `config.json`, `tokenizer.json`, `tokenizer_config.json`,
    `special_tokens_map.json`, and `1_Pooling/config.json` where it does not take the mean.

    `seconds` is how long a look-up waits. Raises EmbedderUnavailable.
    """
    if missing := missing_in(model):
        raise EmbedderUnavailable(f"the embedder fastembed:{model}: {missing}")
    try:
        from fastembed import TextEmbedding
    except ImportError as error:
        advice = "install it: pip install 'watchllm[fastembed]'"
        raise EmbedderUnavailable(f"the embedder fastembed:{model} needs fastembed ({error}); {advice}") from error
    folder = Path(model).expanduser()
    try:
        if folder.is_dir():
            version, running = _of_folder(TextEmbedding, folder)
        else:
            version, running = model, TextEmbedding(model, cache_dir=cache_folder, threads=_THREADS)
        dimensions = len(next(iter(running.embed(["What is it?"]))))
    except Exception as error:  # Whatever fastembed, its downloads and its runtime raise.
        raise EmbedderUnavailable(
            f"the embedder fastembed:{model} cannot be loaded ({type(error).__name__}: {str(error)[:200]}); name a "
            "model that fastembed knows and that can be downloaded, or a folder that holds one"
        ) from error
    name = f"fastembed:{folder.name}"
    thread = _InThread(running)
    return Awaited(name, f"{version} {dimensions}", dimensions, thread.embed, seconds=seconds, on_close=thread.close)


def missing_in(model: str) -> str | None:
    """What the folder `model` lacks, or None; of the name of a model, nothing is known before it is loaded."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return None if model_file(folder) else f"the folder {folder} has no {' or '.join(_MODEL_FILES)}"
    return f"there is no folder {folder}" if folder.is_absolute() or model.startswith(("~", ".")) else None


def model_file(folder: Path) -> str | None:
    """The model in a folder, relative to it."""
    return next((name for name in _MODEL_FILES if (folder / name).is_file()), None)


class _InThread:
    """One text after the other."""

    def __init__(self, model: TextEmbedding) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(1, "semantic-embed")

    async def embed(self, text: str) -> Embedded:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, text)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _embed(self, text: str) -> Embedded:
        vector = numpy.asarray(next(iter(self._model.embed([text]))), numpy.float32)
        length = float(numpy.dot(vector, vector)) ** 0.5
        if not 0 < length < float("inf"):
            raise NotEmbedded(FAILED, "the model gave a vector that has no direction")
        return Embedded(vector / numpy.float32(length))


def _of_folder(embedding: type[TextEmbedding], folder: Path) -> tuple[str, TextEmbedding]:
    """Version and model of a folder. The version is the content's: another model in the same place is another one."""
    from fastembed.common.model_description import ModelSource, PoolingType

    file = model_file(folder)
    assert file is not None
    with (folder / file).open("rb") as content:
        digest = blake2b(digest_size=16)
        while piece := content.read(1 << 20):
            digest.update(piece)
    name = f"watchllm/{digest.hexdigest()}"
    if not any(known["model"] == name for known in embedding.list_supported_models()):
        embedding.add_custom_model(
            name,
            pooling=PoolingType.CLS if _takes_first(folder) else PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(url="file://" + str(folder)),
            dim=_read(folder / "config.json").get("hidden_size", 1),
            model_file=file,
        )
    return name, embedding(name, specific_model_path=str(folder), threads=_THREADS)


def _takes_first(folder: Path) -> bool:
    pooling = folder / _POOLING_FILE
    return pooling.is_file() and bool(_read(pooling).get("pooling_mode_cls_token"))


def _read(file: Path) -> dict[str, Any]:
    document = json.loads(file.read_text(encoding="utf-8"))
    return document if isinstance(document, dict) else {}
