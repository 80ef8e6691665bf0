"""One organization's people and tokens: what belongs to others does not exist, roles that change nothing are told."""

from typing import TYPE_CHECKING, Any

import pytest

from watchllm.control import organizations
from watchllm.control.errors import Forbidden, NotFound
from watchllm.control.organization_plane import OrganizationPlane
from watchllm.control.users import ROLES
from watchllm.domain.limits import parse_limits
from watchllm.domain.settings import parse_settings

if TYPE_CHECKING:
    from tests.unit.control.conftest import World

KEY: dict[str, Any] = {"name": "", "test": False, "scopes": ("inference",), "expires_at": 0}


def two(world: "World", role: str = "admin") -> tuple[OrganizationPlane, OrganizationPlane]:
    """The same plane as two organizations see it."""
    with world.plane.database.unit_of_work("tests") as work:
        ids = [organizations.create(work, name).id for name in ("One", "Two")]
    return OrganizationPlane(world.plane, ids[0], role), OrganizationPlane(world.plane, ids[1], role)


def test_what_belongs_to_another_organization_reads_like_what_does_not_exist(world: "World") -> None:
    one, two_ = two(world)
    project = one.create_project("mine")
    key = one.create_key(project.id, **KEY).record
    unknown = (
        project.id[:-1] + ("0" if project.id[-1] != "0" else "1"),
        key.id[:-1] + ("0" if key.id[-1] != "0" else "1"),
    )
    for project_id, key_id in ((project.id, key.id), unknown):
        for call, id_ in (
            (lambda id_: two_.project(id_), project_id),
            (lambda id_: two_.set_project(id_, parse_settings({"cache": "off"})), project_id),
            (lambda id_: two_.keys(id_, None, 10), project_id),
            (lambda id_: two_.create_key(id_, **KEY), project_id),
            (lambda id_: two_.key(id_), key_id),
            (lambda id_: two_.set_key(id_, parse_limits({"requests_per_minute": "1"})), key_id),
            (lambda id_: two_.revoke_key(id_), key_id),
        ):
            with pytest.raises(NotFound, match=f"has the id '{id_}'; `watchllm (project|key) list` shows them"):
                call(id_)
    assert two_.projects(None, 10) == []
    assert one.project(project.id) == project
    assert one.key(key.id) == key
    assert one.organization().name == "One"


@pytest.mark.parametrize("role", ROLES)
def test_only_owners_and_admins_change_anything(world: "World", role: str) -> None:
    admin, _ = two(world)
    project = admin.create_project("mine")
    key = admin.create_key(project.id, **KEY).record
    somebody = OrganizationPlane(world.plane, project.organization_id, role)
    changes = (
        lambda: somebody.set_organization({"requests_per_minute": 5}),
        lambda: somebody.create_project("another"),
        lambda: somebody.set_project(project.id, {"requests_per_minute": 5}),
        lambda: somebody.create_key(project.id, **KEY),
        lambda: somebody.set_key(key.id, {"requests_per_minute": 5}),
        lambda: somebody.revoke_key(key.id),
    )
    before = world.plane.audit()
    for change in changes:
        if role in ("owner", "admin"):
            change()
        else:
            with pytest.raises(Forbidden, match=f"the role {role} changes nothing; it takes owner or admin"):
                change()
    assert len(world.plane.audit()) - len(before) == (len(changes) if role in ("owner", "admin") else 0)
    assert somebody.project(project.id).id == project.id


def test_lists_are_read_a_page_at_a_time(world: "World") -> None:
    own, other = two(world)
    made = [own.create_project(f"p{number}").id for number in range(5)]
    other.create_project("not to be seen")
    keys = [own.create_key(made[0], **KEY).record.id for _ in range(3)]
    own.revoke_key(keys[1])
    assert [project.id for project in own.projects(None, 2)] == made[:2]
    assert [project.id for project in own.projects(made[1], 10)] == made[2:]
    assert own.projects(made[-1], 10) == []
    assert [key.id for key in own.keys(made[0], None, 2)] == keys[:2]
    assert [key.id for key in own.keys(made[0], keys[0], 2)] == keys[1:]
    assert [key.id for key in own.keys(made[0], None, 5, only_in_force=True)] == [keys[0], keys[2]]


def test_the_audit_log_names_who_acted(world: "World") -> None:
    own = OrganizationPlane(world.plane.acting_as("token:ci"), two(world)[0].organization().id, "admin")
    project = own.create_project("mine")
    own.set_project(project.id, parse_settings({"requests_per_minute": "30"}))
    [line, _] = world.plane.audit(project_id=project.id)
    assert (line.actor, line.action, line.details) == ("token:ci", "project.set", {"requests_per_minute": 30})
