"""A control plane over a home of its own, and a snapshot reader that was opened before anything was published."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.database import lay_in
from watchllm.compose.control import open_control_plane
from watchllm.configuration import Configuration, load
from watchllm.control.plane import ControlPlane
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader


@dataclass
class World:
    configuration: Configuration
    plane: ControlPlane
    reader: LmdbSnapshotReader


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return load({"home": str(tmp_path / "home")}, {})


@pytest.fixture
def world(configuration: Configuration) -> Iterator[World]:
    lay_in(configuration.home)
    reader = LmdbSnapshotReader(configuration.home / "snapshot")
    with open_control_plane(configuration, actor="tester") as plane:
        yield World(configuration, plane, reader)
    reader.close()
