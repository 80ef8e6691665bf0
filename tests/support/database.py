"""A new home's database whose schema is up to date already, as its first command would have brought it: the migrations
run once for each process of tests, and not once for each home."""

import os
import tempfile
from functools import cache
from pathlib import Path

from watchllm.configuration import load
from watchllm.control import schema
from watchllm.stores import home as homes
from watchllm.stores.sqlite.engine import open_engine

NAME = "watchllm.db"


def lay_in(home: Path) -> None:
    """Make the home, where it is missing, and its database, where it has none."""
    homes.prepare(home)
    try:
        descriptor = os.open(home / NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "wb") as file:
        file.write(_up_to_date())


@cache
def _up_to_date() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        configuration = load({"home": folder}, {})
        engine = open_engine(configuration.database_url)
        schema.upgrade(engine)
        engine.dispose()
        left = sorted(path.name for path in Path(folder).iterdir())
        assert left == [NAME], f"what is written is in one file when it is closed, not in {left}"
        return (Path(folder) / NAME).read_bytes()
