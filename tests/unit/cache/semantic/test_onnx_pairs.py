"""Cross-encoders in ONNX, run for real on models that the test makes, and refused in words where there is none."""

import sys
from pathlib import Path

import pytest

from tests.support.cross_encoder_model import ALIKE, make_cross_encoder
from watchllm.cache.semantic.cross_encoder import CrossEncoder, CrossEncoderUnavailable
from watchllm.cache.semantic.onnx_pairs import load

WORDS = {"router": 0.5, "not": -20.0}


def loaded(folder: Path) -> CrossEncoder:
    return load(str(folder), str(folder / "cache"))


def test_a_model_reads_both_texts_at_once(tmp_path: Path) -> None:
    encoder = loaded(make_cross_encoder(tmp_path / "model", WORDS))
    assert encoder.logit("how is it", "how it is") == pytest.approx(ALIKE)
    assert encoder.logit("my router", "the router") == pytest.approx(ALIKE + 1)
    assert encoder.logit("how is it", "how is it not") == pytest.approx(ALIKE - 20)
    assert encoder.logit("how is it not", "how is it") == pytest.approx(ALIKE - 20)


def test_of_two_numbers_the_second_is_for_equal(tmp_path: Path) -> None:
    encoder = loaded(make_cross_encoder(tmp_path / "model", WORDS, outputs=2))
    assert encoder.logit("how is it", "how is it not") == pytest.approx(ALIKE - 20)


def test_what_is_longer_than_it_reads_is_not_cut_off(tmp_path: Path) -> None:
    encoder = loaded(make_cross_encoder(tmp_path / "model", WORDS, most_tokens=16))
    assert encoder.logit("word " * 7, "word " * 6) == pytest.approx(ALIKE)
    assert encoder.logit("word " * 7, "word " * 6 + "not") is None


def test_the_least_bound_that_is_told_counts(tmp_path: Path) -> None:
    folder = make_cross_encoder(tmp_path / "model", WORDS)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert loaded(folder).logit("word " * 30, "word " * 30) == pytest.approx(ALIKE)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    assert loaded(folder).logit("word " * 30, "word " * 30) is None


def test_another_model_in_the_same_folder_is_another_version(tmp_path: Path) -> None:
    versions = [loaded(make_cross_encoder(tmp_path / "model", WORDS, alike=alike)).version for alike in (1.0, 2.0, 1.0)]
    assert versions[0] == versions[2] != versions[1]


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrossEncoderUnavailable, match="gives 3 numbers"):
        loaded(make_cross_encoder(tmp_path / "model", WORDS, outputs=3))


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrossEncoderUnavailable, match="a number that is none"):
        loaded(make_cross_encoder(tmp_path / "model", WORDS, alike=float("nan")))


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    folder = make_cross_encoder(tmp_path / "model", WORDS)
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(CrossEncoderUnavailable, match="cannot be loaded"):
        loaded(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(CrossEncoderUnavailable, match=r"has no model\.onnx"):
        loaded(folder)
    make_cross_encoder(folder, WORDS)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CrossEncoderUnavailable, match=r"has no tokenizer\.json"):
        loaded(folder)
    with pytest.raises(CrossEncoderUnavailable, match="there is no folder"):
        loaded(tmp_path / "missing")


@pytest.mark.parametrize(
    ("package", "advice"), [("onnxruntime", r"watchllm\[cross-encoder\]"), ("fastembed", r"watchllm\[fastembed\]")]
)
def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, advice: str
) -> None:
    folder = make_cross_encoder(tmp_path / "model", WORDS)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CrossEncoderUnavailable, match=f"pip install '{advice}'"):
        load(str(folder) if package == "onnxruntime" else "Xenova/ms-marco-MiniLM-L-6-v2", str(tmp_path))


@pytest.mark.extra
def test_a_name_that_fastembed_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrossEncoderUnavailable, match="cannot be loaded"):
        load("nobody/has-this-model", str(tmp_path))


@pytest.mark.extra
def test_a_model_that_fastembed_runs_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    folder = make_cross_encoder(tmp_path / "model", WORDS)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16, "pad_token": "[UNK]"}')
    (folder / "special_tokens_map.json").write_text('{"pad_token": "[UNK]"}')
    TextCrossEncoder.add_custom_model("watchllm/words", ModelSource(hf="watchllm/words"), model_file="model.onnx")
    made = TextCrossEncoder.__init__

    def in_folder(self: TextCrossEncoder, *args: object, **options: object) -> None:
        made(self, *args, **options, specific_model_path=str(folder))

    monkeypatch.setattr(TextCrossEncoder, "__init__", in_folder)
    encoder = load("watchllm/words", str(tmp_path))
    assert encoder.logit("my router", "it is not") == pytest.approx(ALIKE + 0.5 - 20)
    assert encoder.logit("word " * 9, "word " * 9) is None
