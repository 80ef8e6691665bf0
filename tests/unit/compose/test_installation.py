"""A home without the database of the installation whose Redis it has: nothing is made, and nothing published."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.redis_server import RedisServer
from watchllm.compose.control import bootstrap, open_control_plane, upgrade_schema
from watchllm.compose.doctor import examine
from watchllm.compose.installation import check_no_other
from watchllm.configuration import Configuration, ConfigurationError, load
from watchllm.control.errors import OtherInstallation, PublicationFailed
from watchllm.domain.keys import digest
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader

PRICES = '[openai."gpt-mine"]\ninput = {}\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


def home(server: RedisServer, folder: Path) -> Configuration:
    environment = {**server.environment, "WATCHLLM_SECRET_KEY": "c2VjcmV0" * 6}
    return load({"home": str(folder), "proxy_port": 0, "console_port": 0}, environment)


@pytest.fixture
def fleet(server: RedisServer, tmp_path: Path) -> Configuration:
    """The home that has the database."""
    configuration = home(server, tmp_path / "fleet")
    bootstrap(configuration)
    return configuration


@pytest.fixture
def stray(server: RedisServer, tmp_path: Path) -> Configuration:
    """That of another host, whose WATCHLLM_DATABASE_URL was forgotten."""
    return home(server, tmp_path / "stray")


def test_no_database_is_made_beside_the_installations(fleet: Configuration, stray: Configuration) -> None:
    for command in (bootstrap, upgrade_schema, lambda it: open_control_plane(it).__enter__()):
        with pytest.raises(OtherInstallation, match=r"no database.*WATCHLLM_DATABASE_URL.*--take-redis"):
            command(stray)
    assert not stray.home.exists()
    check_no_other(fleet)


def test_a_home_with_a_database_of_its_own_saves_and_publishes_nothing(
    fleet: Configuration, stray: Configuration
) -> None:
    upgrade_schema(replace(stray, redis_url=None))
    for command in (bootstrap, upgrade_schema):
        with pytest.raises(OtherInstallation, match=r"the database sqlite:///.*watchllm\.db; give this host"):
            command(stray)
    with open_control_plane(stray) as plane:
        with pytest.raises(PublicationFailed, match="saved in this host's database, and not published: Redis at") as it:
            plane.create_project("lost")
        assert it.value.made in plane.projects()
        assert plane.user("usr_1") is None
    found = {check.name: check for check in examine(stray)}
    assert found["snapshot"].status == "failed"
    assert "--take-redis" in found["snapshot"].detail
    assert {check.status for check in examine(fleet) if check.name == "snapshot"} == {"ok"}
    # The first run is not over: nobody was shown what it made.
    assert bootstrap(replace(stray, redis_url=None)) is not None


def test_it_takes_redis_over_where_it_is_told_to(fleet: Configuration, stray: Configuration) -> None:
    upgrade_schema(stray, take_redis=True)
    made = bootstrap(stray)
    assert made is not None
    reader = LmdbSnapshotReader(stray.home / "snapshot")
    assert reader.key(digest(made.key)) is not None
    reader.close()
    with pytest.raises(OtherInstallation):
        upgrade_schema(fleet)
    with pytest.raises(ConfigurationError, match="WATCHLLM_REDIS_URL is not set"):
        upgrade_schema(replace(stray, redis_url=None), take_redis=True)


def test_doctor_knows_a_host_that_only_serves(fleet: Configuration, stray: Configuration) -> None:
    assert [check.advice for check in examine(stray) if check.name == "home"] == ["`watchllm proxy` makes it"]
    stray.home.mkdir(mode=0o700)
    checks = list(examine(stray))
    database = next(check for check in checks if check.name == "database")
    assert (database.status, "WATCHLLM_DATABASE_URL" in database.advice) == ("ok", True)
    assert [check for check in checks if "watchllm up" in check.advice and check.name != "proxy"] == []
    assert list(stray.home.iterdir()) == []


def test_doctor_says_how_the_first_host_begins(stray: Configuration) -> None:
    stray.home.mkdir(mode=0o700)
    advice = {check.name: check.advice for check in examine(stray)}
    assert advice["database"] == "`watchllm up` makes it"


def test_prices_of_the_operators_stay_where_a_home_without_them_publishes(
    fleet: Configuration, server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def price(of: Configuration) -> int | None:
        reader = LmdbSnapshotReader(of.home / "snapshot")
        found = [row.price.input for row in reader.prices("openai") if row.model == "gpt-mine"]
        reader.close()
        return found[0] if found else None

    (fleet.home / "prices.toml").write_text(PRICES.format(3))
    upgrade_schema(fleet)
    assert price(fleet) == 3_000_000_000
    other = replace(home(server, tmp_path / "other"), database_url=fleet.database_url)
    upgrade_schema(other)
    assert price(other) == 3_000_000_000
    assert "prices are held back: this home has no prices.toml" in caplog.text
    with open_control_plane(other) as plane:
        assert plane.publisher.is_in_step()
        assert plane.publisher.prices()["openai"][0].model == "gpt-mine"
    held = next(check for check in examine(other) if check.name == "prices")
    assert (held.status, "openai" in held.detail, "an empty one removes them" in held.detail) == ("warning", True, True)
    assert not any(check.name == "prices" for check in examine(fleet))
    # What its owner changes arrives, and an empty file is a file.
    (fleet.home / "prices.toml").write_text(PRICES.format(4))
    upgrade_schema(fleet)
    upgrade_schema(other)
    assert price(other) == 4_000_000_000
    (other.home / "prices.toml").write_text("")
    upgrade_schema(other)
    assert price(other) is None
    (other.home / "prices.toml").unlink()
    (fleet.home / "prices.toml").unlink()
    upgrade_schema(fleet)
    assert price(fleet) is None
    alone = replace(home(server, tmp_path / "alone"), redis_url=None)
    alone.home.mkdir()
    (alone.home / "prices.toml").write_text(PRICES.format(5))
    upgrade_schema(alone)
    (alone.home / "prices.toml").unlink()
    upgrade_schema(alone)
    assert price(alone) is None
