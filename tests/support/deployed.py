"""What is deployed must fit the program: its commands, its settings, and images that are public by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from watchllm.cli.app import app
from watchllm.configuration import SETTINGS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
VARIABLES = {setting.variable for setting in SETTINGS}


def unknown_variables(names: Iterable[str]) -> set[str]:
    """Those that no setting reads."""
    return set(names) - VARIABLES


def check_command(arguments: list[str]) -> None:
    """Raises ValueError for what `watchllm` would refuse."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while isinstance(command, TyperGroup):
        if not rest or rest[0] not in command.commands:
            raise ValueError(f"no such command: {arguments}")
        command = command.commands[rest.pop(0)]
    try:
        command.make_context(arguments[0], rest)
    except Exception as error:
        # Whatever the command-line library calls it.
        raise ValueError(f"{arguments}: {error}") from error


def is_public(image: str) -> bool:
    """Whether an image is named as the public hub names it, without the host of a registry."""
    first = image.partition("/")[0]
    return "/" not in image or not ({".", ":"} & set(first) or first == "localhost")
