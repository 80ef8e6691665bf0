"""The cross-encoder that the configuration names. To make it loads nothing: `CrossEncoding.start` does, in a thread."""

from __future__ import annotations

import os

from watchllm.cache.semantic.cross_encoder import AS_IT_COMES, Calibration, CrossEncoder
from watchllm.cache.semantic.cross_encoding import CrossEncoding
from watchllm.compose.embedder import MODELS_FOLDER
from watchllm.configuration import Configuration


def open_cross_encoding(configuration: Configuration) -> CrossEncoding | None:
    """The one of this process; None where none is configured."""
    model = configuration.cross_encoder
    if model is None:
        return None
    return CrossEncoding(
        lambda: load_cross_encoder(configuration, model),
        calibration_of(configuration),
        seconds=configuration.cross_encoder_timeout,
    )


def load_cross_encoder(configuration: Configuration, model: str) -> CrossEncoder:
    """The model in that folder or of that name. Raises CrossEncoderUnavailable."""
    from watchllm.cache.semantic.onnx_pairs import load

    return load(model, os.path.join(configuration.directory, MODELS_FOLDER))


def calibration_of(configuration: Configuration) -> Calibration:
    """What its numbers are worth, as configured."""
    found = configuration.cross_encoder_calibration
    return AS_IT_COMES if found is None else Calibration(*found)
