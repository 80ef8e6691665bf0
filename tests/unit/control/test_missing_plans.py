"""What plans.toml lacks, or cannot be read, holds back whom it is about, and nobody else."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from watchllm.control import organizations
from watchllm.control.errors import OnlyKeysPublished, PlansUnusable, PublicationFailed
from watchllm.control.keys import NewKey
from watchllm.control.organizations import parse_changes
from watchllm.control.plane import ControlPlane
from watchllm.domain.keys import digest
from watchllm.domain.sealing import Sealer
from watchllm.domain.settings import parse_settings
from watchllm.domain.snapshot import ProjectRecord

if TYPE_CHECKING:
    from tests.unit.control.conftest import World


@dataclass
class Tenant:
    """An organization with a project and a key."""

    organization: str
    project: str
    key: NewKey


def tenant(plane: ControlPlane, plan: str) -> Tenant:
    organization = plane.create_organization(plan, parse_changes({"plan": plan})).id
    project = plane.create_project(plan, organization_id=organization).id
    return Tenant(organization, project, plane.create_key(project))


@pytest.fixture
def lacking(world: "World") -> Tenant:
    """Of an organization whose plan, with one request a month, is gone."""
    file = world.configuration.home / "plans.toml"
    file.write_text("[team]\nmonthly_requests = 1\n")
    made = tenant(world.plane, "team")
    file.unlink()
    return made


def limited(world: "World", project_id: str) -> ProjectRecord:
    """The published record, which must hold the one request a month."""
    record = world.reader.project(project_id)
    assert record is not None
    assert record.organization is not None
    assert record.organization.limits.monthly_requests == 1
    return record


def test_a_plan_that_is_gone_frees_nobody_from_its_limits(world: "World", lacking: Tenant) -> None:
    plane = world.plane
    with pytest.raises(PublicationFailed, match=rf"no plan 'team', which {lacking.organization} has any more"):
        plane.set_project(lacking.project, parse_settings({"cache": "off"}))
    assert not plane.publisher.publish_all()
    assert limited(world, lacking.project).settings.cache is True
    plane.revoke_key(lacking.key.record.id)
    assert world.reader.key(digest(lacking.key.secret)) is None
    plane.set_organization(lacking.organization, parse_changes({"plan": "free"}))
    record = world.reader.project(lacking.project)
    assert record is not None
    assert record.organization is not None
    assert (record.organization.limits.monthly_requests, record.settings.cache) == (50_000, False)


def test_everybody_elses_changes_are_published(world: "World", lacking: Tenant) -> None:
    plane = world.plane
    other = tenant(plane, "free")
    with pytest.raises(PublicationFailed):
        plane.set_project(lacking.project, parse_settings({"cache": "off"}))
    plane.set_project(other.project, parse_settings({"allowed_ips": "192.0.2.7"}))
    record = world.reader.project(other.project)
    assert record is not None
    assert record.settings.allowed_ips == ("192.0.2.7/32",)
    plane.set_organization(other.organization, parse_changes({"requests_per_minute": "3"}))
    record = world.reader.project(other.project)
    assert record is not None
    assert record.organization is not None
    assert record.organization.limits.requests_per_minute == 3
    assert limited(world, lacking.project).settings.cache is True
    assert not plane.has_unpublished()


def test_a_process_without_the_plan_takes_no_change_from_one_that_has_it(
    world: "World", monkeypatch: pytest.MonkeyPatch
) -> None:
    file = world.configuration.home / "plans.toml"
    file.write_text("[team]\nmonthly_requests = 1\n")
    made, publisher = tenant(world.plane, "team"), world.plane.publisher
    real = publisher.publish_pending

    def late(own: Collection[str] = ()) -> bool:
        file.unlink()
        assert real()
        file.write_text("[team]\nmonthly_requests = 1\n")
        return real(own)

    monkeypatch.setattr(publisher, "publish_pending", late)
    world.plane.set_project(made.project, parse_settings({"cache": "off"}))
    assert limited(world, made.project).settings.cache is False
    monkeypatch.setattr(publisher, "publish_pending", lambda own: real() and real(own))
    file.unlink()
    with pytest.raises(PublicationFailed, match="no plan 'team'"):
        world.plane.set_project(made.project, parse_settings({"cache": "on"}))


def test_what_was_held_back_is_published_when_the_plan_is_back(
    world: "World", lacking: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = world.plane.publisher
    with pytest.raises(PublicationFailed):
        world.plane.set_project(lacking.project, parse_settings({"cache": "off"}))
    with caplog.at_level(logging.WARNING):
        publisher.publish_all()
        publisher.publish_all()
    assert caplog.text.count(lacking.organization + " has any more") == 1
    (world.configuration.home / "plans.toml").write_text("[team]\nmonthly_requests = 1\n")
    with caplog.at_level(logging.WARNING):
        assert publisher.publish_all()
    assert limited(world, lacking.project).settings.cache is False
    assert "every organization has a plan again" in caplog.text


def test_what_was_never_published_is_left_out(world: "World", lacking: Tenant) -> None:
    with pytest.raises(PublicationFailed, match=lacking.organization):
        world.plane.create_project("new", organization_id=lacking.organization)
    other = world.plane.create_project("another", organization_id=tenant(world.plane, "free").organization)
    world.plane.publisher.publish_all()
    [new] = [project.id for project in world.plane.projects() if project.name == "new"]
    assert world.reader.project(new) is None
    assert world.reader.project(other.id) is not None
    assert limited(world, lacking.project)


def test_only_the_organizations_of_what_is_published_are_looked_up(
    world: "World", monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        tenant(world.plane, "free")
    one = tenant(world.plane, "pro")
    seen = []
    real = organizations._organization
    monkeypatch.setattr(organizations, "_organization", lambda row: seen.append(row.id) or real(row))
    world.plane.set_project(one.project, parse_settings({"cache": "off"}))
    assert seen == [one.organization]


def test_nothing_is_rotated_that_could_not_be_published(world: "World", lacking: Tenant) -> None:
    before = world.plane.secret_in_force().canary
    with pytest.raises(PlansUnusable, match=lacking.organization):
        world.plane.rotate_secret(Sealer("another secret of enough characters"))
    assert world.plane.secret_in_force().canary == before


def test_a_file_that_cannot_be_read_holds_up_no_revocation(world: "World") -> None:
    made = tenant(world.plane, "free")
    (world.configuration.home / "plans.toml").write_text("[team")
    with pytest.raises(PublicationFailed, match=r"plans\.toml"):
        world.plane.set_project(made.project, parse_settings({"cache": "off"}))
    world.plane.revoke_key(made.key.record.id)
    assert world.reader.key(digest(made.key.secret)) is None
    with pytest.raises(OnlyKeysPublished):
        world.plane.publisher.publish_pending()
    with pytest.raises(PlansUnusable, match=r"plans\.toml"):
        world.plane.publisher.publish_all()


def test_a_revocation_is_said_to_be_in_force_only_where_it_is(world: "World", monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was emptied, and nothing can be published anew for plans.toml; proxies serve with their last copy."""
    made = tenant(world.plane, "free")
    (world.configuration.home / "plans.toml").write_text("[team")
    with monkeypatch.context() as patched:
        patched.setattr(world.plane.publisher._snapshot, "version", lambda: 0)
        with pytest.raises(PublicationFailed, match=r"plans\.toml"):
            world.plane.revoke_key(made.key.record.id)
        assert world.reader.key(digest(made.key.secret)) is not None
    world.plane.publisher.publish_pending()
    assert world.reader.key(digest(made.key.secret)) is None
