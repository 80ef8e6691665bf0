"""`--expires`, as keys and tokens take it."""

import time

import typer

from watchllm.domain.moments import expiry

EXPIRES = typer.Option("", help="When it ends: 90d, 12h, 30m, or 2030-01-31[T12:00:00Z]. Default: never.")


def expires_at_of(text: str) -> int:
    """Epoch seconds, 0 = never; a usage error for what is not understood."""
    try:
        return expiry(text, time.time())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expires") from None
