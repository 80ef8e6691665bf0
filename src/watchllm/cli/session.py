"""What every command begins with: the configuration of this shell, and the control plane over it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from watchllm.configuration import Configuration, load

if TYPE_CHECKING:
    from watchllm.control.plane import ControlPlane


def configuration() -> Configuration:
    """Raises ConfigurationError."""
    return load({}, os.environ)


@contextmanager
def control_plane() -> "Iterator[ControlPlane]":
    """The control plane for one command; what is raised inside is turned into an exit code by `cli.app`."""
    # Here, not above: SQLAlchemy takes a quarter of a second that `--help` and `sim` need not wait for.
    from watchllm.compose.control import open_control_plane

    with open_control_plane(configuration()) as plane:
        yield plane
