"""The rotation of the master secret: everything opens at any moment, and nothing under the old secret afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from watchllm.compose.control import bootstrap, keyring_of, open_control_plane
from watchllm.compose.doctor import examine
from watchllm.compose.secret import rotate
from watchllm.configuration import Configuration, load
from watchllm.control import tables
from watchllm.control.errors import Invalid, PlansUnusable, PublicationFailed
from watchllm.control.publisher import Publisher
from watchllm.domain.sealing import SealBroken, Sealer, WrongSecret
from watchllm.stores import home
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader

OLD, NEW = "o" * 40, "n" * 40
PLAIN = b"sk-secret-0123456789"


def loaded(folder: Path, *, secret: str | None = None, previous: str | None = None) -> Configuration:
    named = {"WATCHLLM_SECRET_KEY": secret, "WATCHLLM_SECRET_KEY_PREVIOUS": previous}
    return load({"home": str(folder)}, {name: value for name, value in named.items() if value is not None})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def reader(folder: Path) -> Iterator[LmdbSnapshotReader]:
    reader = LmdbSnapshotReader(folder / "snapshot")
    yield reader
    reader.close()


def with_a_key(configuration: Configuration) -> str:
    """A home with a project and a provider key of its own; the project's id."""
    bootstrap(configuration)
    with open_control_plane(configuration) as plane:
        project = plane.create_project("Mine")
        plane.add_provider_key(project.id, "openai", PLAIN.decode())
        return project.id


def published_secret(reader: LmdbSnapshotReader, project_id: str, sealer: Sealer) -> bytes:
    project = reader.project(project_id)
    assert project is not None
    [key] = project.provider_keys
    return sealer.open(key.sealed, key.id)


def test_a_secret_in_the_home_is_replaced_and_everything_sealed_anew(folder: Path, reader: LmdbSnapshotReader) -> None:
    configuration = loaded(folder)
    project = with_a_key(configuration)
    old, hashed = home.master_secret(folder, None), reader.secret("cache_hash")
    running = keyring_of(configuration)
    rotation = rotate(configuration, None)
    new = home.master_secret(folder, None)
    assert (rotation.provider_keys, rotation.is_configured) == (1, False)
    assert new != old
    assert (len(new), (folder / "secret.key").stat().st_mode & 0o777) == (64, 0o600)
    assert not (folder / "secret.key.previous").exists()
    assert published_secret(reader, project, Sealer(new)) == PLAIN
    with pytest.raises(SealBroken):
        published_secret(reader, project, Sealer(old))
    record = reader.project(project)
    assert record is not None
    [key] = record.provider_keys
    assert running.open(key.sealed, key.id) == PLAIN, "a process that runs reads the files again"
    assert reader.secret("cache_hash") == hashed, "the cache stays warm"
    with open_control_plane(configuration) as plane:
        assert plane.publisher.is_in_step()
        assert [line.action for line in plane.audit(limit=1)] == ["secret.rotate"]
    rotate(configuration, NEW)
    assert home.master_secret(folder, None) == NEW
    assert reader.secret("cache_hash") == hashed
    assert published_secret(reader, project, Sealer(NEW)) == PLAIN


def test_a_wrong_secret_is_a_clear_error_after_a_rotation_too(folder: Path) -> None:
    with_a_key(loaded(folder, secret=OLD))
    rotate(loaded(folder, secret=OLD), NEW)
    for wrong in (OLD, "w" * 40):
        with (
            pytest.raises(WrongSecret, match="is not the secret that the database was sealed under"),
            open_control_plane(loaded(folder, secret=wrong)),
        ):
            pass
    with open_control_plane(loaded(folder, secret=NEW)) as plane:
        assert plane.publisher.is_in_step()


def test_processes_know_both_secrets_before_everything_is_sealed_under_the_new_one(
    folder: Path, reader: LmdbSnapshotReader
) -> None:
    project = with_a_key(loaded(folder, secret=OLD))
    both = loaded(folder, secret=NEW, previous=OLD)
    with open_control_plane(both) as plane:
        plane.remove_provider_key(plane.provider_keys(project)[0].id)
        plane.add_provider_key(project, "openai", PLAIN.decode())
    assert published_secret(reader, project, Sealer(OLD)) == PLAIN, "who was not restarted yet can open what is added"
    checks = {check.name: check for check in examine(both)}
    assert "a rotation is not complete" in checks["sealed secrets"].detail
    assert rotate(both, None).provider_keys == 1
    assert published_secret(reader, project, Sealer(NEW)) == PLAIN
    checks = {check.name: check for check in examine(both)}
    assert "all of them open" in checks["sealed secrets"].detail
    with pytest.raises(Invalid, match="sealed under this secret already"):
        rotate(both, None)
    with open_control_plane(loaded(folder, secret=NEW)) as plane:
        assert plane.publisher.is_in_step()


def test_a_key_that_does_not_open_stops_the_rotation_before_anything_changed(
    folder: Path, reader: LmdbSnapshotReader
) -> None:
    configuration = loaded(folder)
    project = with_a_key(configuration)
    old = home.master_secret(folder, None)
    with open_control_plane(configuration) as plane:
        broken = plane.add_provider_key(project, "groq", "gsk-broken")
        with plane.database.unit_of_work("damage") as work:
            here = tables.provider_keys.c.id == broken.id
            work.connection.execute(update(tables.provider_keys).where(here).values(sealed=b"damaged" * 9))
    with pytest.raises(Invalid, match=f"provider-key remove {broken.id}"):
        rotate(configuration, None)
    with open_control_plane(configuration) as plane:
        assert plane.secret_in_force().canary == Sealer(old).canary, "the files hold both, and the old one is in force"
        plane.remove_provider_key(broken.id)
        # Another secret now would push the one in force out of the files.
        with pytest.raises(Invalid, match="earlier rotation is not complete"):
            rotate(configuration, NEW)
    assert rotate(configuration, None).provider_keys == 1
    assert not (folder / "secret.key.previous").exists()
    assert published_secret(reader, project, Sealer(home.master_secret(folder, None))) == PLAIN


def test_a_rotation_that_cannot_be_published_keeps_the_old_secret_beside_the_new_one(
    folder: Path, reader: LmdbSnapshotReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = loaded(folder)
    project = with_a_key(configuration)
    old = home.master_secret(folder, None)

    def fails(_publisher: Publisher, _own: object) -> bool:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish_pending", fails)
        with pytest.raises(PublicationFailed, match="No space left"):
            rotate(configuration, None)
    # What proxies have is sealed under the old secret: one that starts now can still open it.
    assert published_secret(reader, project, Sealer(old)) == PLAIN
    assert keyring_of(configuration).in_force(reader.secret("canary"), "the snapshot").canary == Sealer(old).canary
    with open_control_plane(configuration) as plane:
        plane.publisher.publish_pending()
        plane.publisher.publish_all()
    new = home.master_secret(folder, None)
    assert published_secret(reader, project, Sealer(new)) == PLAIN
    assert rotate(configuration, None).provider_keys == 1


@pytest.mark.parametrize("new", ["short", OLD])
def test_a_secret_that_is_none_or_no_new_one_is_refused(folder: Path, new: str) -> None:
    with_a_key(loaded(folder, secret=OLD))
    with pytest.raises(Invalid, match="at least 32" if new == "short" else "already"):
        rotate(loaded(folder, secret=OLD), new)
    with open_control_plane(loaded(folder, secret=OLD)) as plane:
        assert plane.secret_in_force().canary == Sealer(OLD).canary


def test_a_process_that_still_has_the_old_secret_seals_nothing_under_it(folder: Path) -> None:
    project = with_a_key(loaded(folder, secret=OLD))
    with open_control_plane(loaded(folder, secret=OLD)) as stale:
        rotate(loaded(folder, secret=OLD), NEW)
        with pytest.raises(WrongSecret):
            stale.add_provider_key(project, "groq", "gsk-late")
        assert [key.provider for key in stale.provider_keys(project)] == ["openai"]


def test_a_rotation_waits_for_a_plan_that_is_gone(folder: Path, reader: LmdbSnapshotReader) -> None:
    configuration = loaded(folder)
    project = with_a_key(configuration)
    old, plans = home.master_secret(folder, None), folder / "plans.toml"
    plans.write_text("[team]\n")
    with open_control_plane(configuration) as plane:
        plane.set_organization(plane.all_organizations()[0].id, {"plan": "team"})
    plans.unlink()
    with pytest.raises(PlansUnusable, match="no plan 'team'"):
        rotate(configuration, None)
    assert published_secret(reader, project, Sealer(old)) == PLAIN
    plans.write_text("[team]\n")
    assert rotate(configuration, None).provider_keys == 1
    assert published_secret(reader, project, Sealer(home.master_secret(folder, None))) == PLAIN
    assert not (folder / "secret.key.previous").exists()
