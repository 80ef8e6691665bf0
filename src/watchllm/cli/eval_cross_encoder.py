"""`watchllm eval --cross-encoder`: what one says of the pairs that the engine is in doubt about, and what its numbers
are worth."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from watchllm.cache.semantic.cross_encoder import Calibration
    from watchllm.cache.semantic.evaluate import Judged


class Reader(NamedTuple):
    """The model of that name or folder, loaded, and what its numbers are taken for."""

    model: str
    logit: "Callable[[str, str], float | None]"
    calibration: "Calibration"


def reader_of(model: str, calibration: str | None) -> Reader:
    """Load the model. `calibration` as the option has it, None = as configured."""
    from watchllm.cache.semantic.cross_encoder import Calibration, CrossEncoderUnavailable
    from watchllm.cli.session import configuration
    from watchllm.compose.cross_encoder import calibration_of, load_cross_encoder
    from watchllm.setting_forms import calibration as parsed

    configured = configuration()
    try:
        worth = calibration_of(configured) if calibration is None else Calibration(*parsed(calibration))
    except ValueError as error:
        raise typer.BadParameter(f"expected {error}", param_hint="--calibration") from None
    try:
        return Reader(model, load_cross_encoder(configured, model).logit, worth)
    except CrossEncoderUnavailable as error:
        raise typer.BadParameter(str(error), param_hint="--cross-encoder") from None


def said(judged: "Sequence[Judged]", reader: Reader) -> dict[str, Any]:
    """What it was asked, how often it was right, and how long that took. `ranked_right` is how often an equal pair gets
    a higher number than another (0.5 = it tells nothing); `fits` is the calibration that the labelled pairs in doubt
    call for, None where they are too few or it would be worth nothing."""
    from watchllm.cache.semantic.calibrating import Reading, fitted, ranked_right

    read = [(one.pair.label, one.reading) for one in judged if one.reading is not None]
    labelled = [
        Reading(reading.confidence, reading.logit, label == 1)
        for label, reading in read
        if label is not None and reading.logit is not None
    ]
    fit, ranked = fitted(labelled), ranked_right(labelled)
    return {
        "model": reader.model,
        "calibration": _shown(reader.calibration),
        "asked": len(read),
        "asked_share": round(len(read) / len(judged), 8) if judged else None,
        "yes": sum(reading.is_yes for _, reading in read),
        "too_long": sum(reading.logit is None for _, reading in read),
        "wrong_yes": sum(label == 0 and reading.is_yes for label, reading in read),
        "missed_yes": sum(label == 1 and not reading.is_yes for label, reading in read),
        "ms_per_asked": round(sum(reading.seconds for _, reading in read) / len(read) * 1e3, 2) if read else None,
        "ranked_right": None if ranked is None else round(ranked, 4),
        "fits": None if fit is None else _shown(fit),
    }


def _shown(calibration: "Calibration") -> str:
    """As WATCHLLM_CROSS_ENCODER_CALIBRATION takes it."""
    return f"{calibration.slope:.4g},{calibration.intercept:.4g}"
