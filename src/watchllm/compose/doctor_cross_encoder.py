"""Whether the cross-encoder that is configured can be had. Loads no model."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.configuration import Configuration

_NAME = "cross-encoder"


def examine_cross_encoder(configuration: Configuration) -> Iterator[Check]:
    """Nothing where none is configured."""
    model = configuration.cross_encoder
    if model is None:
        return
    from watchllm.cache.semantic.onnx_pairs import missing_of

    package, extra = (
        ("onnxruntime", "cross-encoder") if Path(model).expanduser().is_dir() else ("fastembed", "fastembed")
    )
    missing = missing_of(model)
    if missing:
        advice = "correct WATCHLLM_CROSS_ENCODER, or unset it to do without one"
        yield Check(_NAME, FAILED, f"doubts stay misses: {missing}", advice)
    elif find_spec(package) is None:
        yield Check(_NAME, FAILED, f"{package} is not installed", f"pip install 'watchllm[{extra}]'")
    elif configuration.cross_encoder_calibration is None:
        detail = f"what {model} says is taken as it comes: WATCHLLM_CROSS_ENCODER_CALIBRATION is not set"
        yield Check(_NAME, WARNING, detail, f"`watchllm eval PAIRS.jsonl --cross-encoder {model}` finds it")
    else:
        yield Check(_NAME, OK, f"{model}, calibrated")
