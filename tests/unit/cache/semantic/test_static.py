"""The embedded default embedder: offline, bounded, deterministic, and blind to what must not cost a hit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from watchllm.cache.semantic import static
from watchllm.cache.semantic.embedder import EmbedderUnavailable
from watchllm.cache.semantic.static import StaticEmbedder


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load()


def _similarity(embedder: StaticEmbedder, one: str, other: str) -> float:
    first, second = embedder.embed([one, other])
    return float(first @ second)


def test_vectors_have_length_one_and_the_declared_dimensions(embedder: StaticEmbedder) -> None:
    vectors = embedder.embed(["What is the capital of France?", "Hauptstadt", "日本語の文章を", "🙂"])
    assert vectors.shape == (4, embedder.dimensions)
    assert vectors.dtype == numpy.float32
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_means_the_same_is_nearer_than_what_does_not(embedder: StaticEmbedder) -> None:
    asked = "How do I reset my password?"
    assert _similarity(embedder, asked, "how can I reset the password") > 0.85
    assert _similarity(embedder, asked, "What is the capital of France?") < 0.4


def test_case_makes_no_difference(embedder: StaticEmbedder) -> None:
    assert _similarity(embedder, "How do I reset my password?", "HOW DO I RESET MY PASSWORD?") == pytest.approx(1)


def test_a_prompt_is_embedded_alike_alone_and_among_others(embedder: StaticEmbedder) -> None:
    together = embedder.embed(["first", "the second prompt", "third"])
    assert numpy.array_equal(together[1], embedder.embed(["the second prompt"])[0])


@pytest.mark.parametrize("text", ["", " ", "\n\t \u2003", " " * 1_000_000])
def test_nothing_to_embed_is_like_nothing(embedder: StaticEmbedder, text: str) -> None:
    assert not embedder.embed([text]).any()


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "🙂" * 250_000,
        "\ud800 lone surrogate",
        "\ud83d",
        "\x00\x01\x7f",
        "<s></s><unk>",
        "شكرا " * 1000,
        "İ" * 5000,
        "mixed אב 日本 text" * 500,
    ],
)
def test_hostile_prompts_give_vectors_like_any_other(embedder: StaticEmbedder, text: str) -> None:
    vector = embedder.embed([text])[0]
    assert numpy.isfinite(vector).all()
    assert numpy.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_tokens_that_one_prompt_costs_are_bounded(embedder: StaticEmbedder) -> None:
    for text in ("🙂" * 100_000, "word " * 100_000, "\ud800" * 100_000):
        assert len(embedder._tokens(text)) <= static._MOST_TOKENS
        assert len(static._shortened(text).encode()) <= static._MOST_BYTES


def test_of_a_long_prompt_beginning_and_end_count(embedder: StaticEmbedder) -> None:
    middle = "filling words of no meaning " * 1000
    vectors = embedder.embed([f"bread {middle} {tail}" for tail in ("butter " * 200, "engine " * 200)])
    assert float(vectors[0] @ vectors[1]) < 0.99


def test_the_packages_own_code_is_never_loaded() -> None:
    script = (
        "import sys; from watchllm.cache.semantic.static import StaticEmbedder; StaticEmbedder.load().embed(['x']); "
        "assert not {'wordllama', 'requests', 'huggingface_hub', 'pydantic'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "find_spec", lambda name: None)
    with pytest.raises(EmbedderUnavailable, match="wordllama is not installed"):
        StaticEmbedder.load()


@pytest.mark.parametrize("broken", [static._WEIGHTS, static._TOKENIZER])
def test_a_damaged_file_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:  # type: ignore[no-untyped-def]
    whole = static._package_folder()
    for name in (static._WEIGHTS, static._TOKENIZER):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"{}" if name == broken else (whole / name).read_bytes())
    monkeypatch.setattr(static, "_package_folder", lambda: tmp_path)
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded"):
        StaticEmbedder.load()


def _safetensors(name: str, dtype: str, rows: int, data: bytes) -> bytes:
    header = {name: {"dtype": dtype, "shape": [rows, 2], "data_offsets": [0, rows * 4]}}
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no tensor"),
        (b"\xff" * 100, "no tensor"),
        ((9).to_bytes(8, "little") + b"not json!", "no tensor"),
        (_safetensors("another", "F16", 1, bytes(4)), "no tensor"),
        (_safetensors("embedding.weight", "F32", 1, bytes(8)), "F32"),
        (_safetensors("embedding.weight", "F16", 9, bytes(4)), "greater than file size"),
        (_safetensors("embedding.weight", "F16", -1, bytes(4)), "no tensor"),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        static._weights(file)


def test_weights_are_read_where_they_lie(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    values = numpy.arange(6, dtype=numpy.float16).reshape(3, 2)
    file.write_bytes(_safetensors("embedding.weight", "F16", 3, values.tobytes()))
    assert numpy.array_equal(static._weights(file), values)
