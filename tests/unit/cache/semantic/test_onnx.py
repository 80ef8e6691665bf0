"""Sentence models in ONNX: run for real on a model that the test makes, and refused in words where there is none.

The former need the extra `test-fastembed`, which is in no locked requirements: `make extras` runs them.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from watchllm.cache.semantic.awaited import Awaited
from watchllm.cache.semantic.embedder import EmbedderUnavailable
from watchllm.cache.semantic.onnx import load


@pytest.fixture
def make() -> Callable[..., Path]:
    """`make_model` of the test support."""
    from tests.support.onnx_model import make_model

    return make_model


def loaded(folder: Path) -> Awaited:
    return load(str(folder), str(folder / "cache"), seconds=5.0)


def vectors(embedder: Awaited, *texts: str) -> list[numpy.ndarray]:
    async def embed() -> list[numpy.ndarray]:
        return [await embedder.vector(text, b"p" * 16) for text in texts]

    try:
        return asyncio.run(embed())
    finally:
        embedder.close()


@pytest.mark.extra
def test_a_model_in_a_folder_gives_vectors_of_length_1(make: Callable[..., Path], tmp_path: Path) -> None:
    embedder = loaded(make(tmp_path / "model"))
    one, other, same = vectors(embedder, "how do i reset my password", "what is it ?", "how do i reset my password")
    assert embedder.dimensions == 8
    assert one.shape == (8,)
    assert one.dtype == numpy.float32
    assert float(one @ one) == pytest.approx(1, abs=1e-5)
    assert float(one @ same) == pytest.approx(1, abs=1e-5)
    assert float(one @ other) < 0.99


@pytest.mark.extra
def test_another_model_in_the_same_folder_is_another_version(make: Callable[..., Path], tmp_path: Path) -> None:
    versions = []
    for seed in (1, 2, 1):
        embedder = loaded(make(tmp_path / "model", seed=seed))
        versions.append(embedder.version)
        embedder.close()
    assert versions[0] == versions[2] != versions[1]


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(EmbedderUnavailable, match=r"pip install 'watchllm\[fastembed\]'"):
        load("BAAI/bge-small-en-v1.5", str(tmp_path), seconds=1.0)


@pytest.mark.extra
def test_half_of_a_model_is_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    (make(tmp_path / "model") / "tokenizer.json").unlink()
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded"):
        loaded(tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match=r"has no model\.onnx"):
        loaded(tmp_path)
    with pytest.raises(EmbedderUnavailable, match="there is no folder"):
        loaded(tmp_path / "missing")


@pytest.mark.extra
def test_a_name_that_fastembed_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded"):
        load("nobody/has-this-model", str(tmp_path), seconds=1.0)
