"""What the pages on limits ask of the database: as much for many projects and keys as for few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import event

from watchllm.compose.control import open_control_plane
from watchllm.configuration import load
from watchllm.console.limit_subjects import project
from watchllm.console.pages import limits, limits_of
from watchllm.console.services import Console
from watchllm.control.plane import ControlPlane
from watchllm.control.users import User


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with open_control_plane(load({"home": str(tmp_path / "home")}, {}), actor="tester") as plane:
        yield plane


@contextmanager
def statements(plane: ControlPlane) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(plane.database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(plane.database.engine, "before_cursor_execute", note)


def asked(plane: ControlPlane, page: Callable[[Console, User], object]) -> int:
    """How many statements a page takes."""
    user = User("usr_1", plane.all_organizations()[0].id, "a@b", "owner", 0)
    with statements(plane) as seen:
        page(cast("Console", SimpleNamespace(plane=plane, now=lambda: 0.0)), user)
    return len(seen)


def test_the_list_takes_as_many_statements_for_many_projects_as_for_one(plane: ControlPlane) -> None:
    plane.create_project("one")
    few = asked(plane, lambda console, user: limits._page(console, user, None))
    for number in range(limits.PROJECTS + 5):
        plane.create_project(f"{number}")
    assert asked(plane, lambda console, user: limits._page(console, user, None)) == few <= 6


def test_a_project_takes_as_many_statements_for_many_keys_as_for_one(plane: ControlPlane) -> None:
    made = plane.create_project("one").id
    plane.create_key(made)
    request = cast("Any", SimpleNamespace(path_params={"id": made}, query_params={}))

    def page(console: Console, user: User) -> object:
        return limits_of._page(console, user, project, request)

    few = asked(plane, page)
    for _ in range(limits_of.KEYS + 5):
        plane.create_key(made)
    assert asked(plane, page) == few <= 10
