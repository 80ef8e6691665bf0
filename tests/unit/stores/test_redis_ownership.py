"""Of several installations that have the same Redis, by mistake, one publishes there: the others change nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from watchllm.control.errors import OtherInstallation
from watchllm.control.publication import Installation, Publication
from watchllm.domain.ledger import NotTold, Place
from watchllm.domain.snapshot import KeyRecord, PriceRow
from watchllm.domain.usage import ModelPrice
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.lmdb.snapshot_copy import NOTHING, Position
from watchllm.stores.redis import snapshot_writer
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.limits_layout import WANTED
from watchllm.stores.redis.limits_ledger import RedisAccounts
from watchllm.stores.redis.ownership import owner_at
from watchllm.stores.redis.snapshot_layout import STATE
from watchllm.stores.redis.snapshot_writer import RedisSnapshotWriter

OURS = Installation("a" * 32, "postgresql://user:***@10.0.0.5/watchllm")
OTHERS = Installation("b" * 32, "sqlite:///stray.db")
KEY, STRAY = bytes(32), bytes(31) + b"1"
EVERYTHING = Publication(keys={KEY: KeyRecord("key_1", "prj_1")}, complete=True)
NOTHING_AT_ALL = Publication(complete=True)


@pytest.fixture
def ours(server: RedisServer, tmp_path: Path) -> Iterator[RedisSnapshotWriter]:
    writer = RedisSnapshotWriter(server.url, tmp_path / "ours", OURS)
    yield writer
    writer.close()


@pytest.fixture
def stray(server: RedisServer, tmp_path: Path) -> Iterator[RedisSnapshotWriter]:
    """The publisher of another installation, on another host."""
    writer = RedisSnapshotWriter(server.url, tmp_path / "stray", OTHERS)
    yield writer
    writer.close()


def published(writer: RedisSnapshotWriter, tmp_path: Path) -> bool:
    """Whether our key is, by what a host reads."""
    writer.version()
    reader = LmdbSnapshotReader(tmp_path / "ours")
    found = reader.key(KEY) is not None
    reader.close()
    return found


def test_another_one_publishes_nothing_and_is_told_what_to_do(
    ours: RedisSnapshotWriter, stray: RedisSnapshotWriter, server: RedisServer, tmp_path: Path
) -> None:
    ours.update(lambda: EVERYTHING)
    before = server.command("HGETALL", STATE)
    refused = [
        lambda: stray.update(lambda: NOTHING_AT_ALL),
        lambda: stray.update(lambda: Publication(keys={KEY: None})),
        lambda: stray.differs(NOTHING_AT_ALL),
        stray.version,
    ]
    for attempt in refused:
        with pytest.raises(OtherInstallation, match=r"sqlite:///stray\.db.*WATCHLLM_DATABASE_URL.*--take-redis"):
            attempt()
    assert server.command("HGETALL", STATE) == before
    assert published(ours, tmp_path)


@pytest.mark.parametrize("before", ["empty", "ours"])
def test_whose_it_became_while_somebody_was_publishing_is_found_out(
    ours: RedisSnapshotWriter, stray: RedisSnapshotWriter, server: RedisServer, tmp_path: Path, before: str
) -> None:
    """The other one has looked already, and found nothing in its way."""
    taker = RedisSnapshotWriter(server.url, tmp_path / "ours", OURS, take_over=before == "ours")
    if before == "ours":
        stray.update(lambda: NOTHING_AT_ALL)
    attempts = []

    def derive() -> Publication:
        attempts.append(1)
        assert taker.update(lambda: EVERYTHING)
        return Publication(keys={STRAY: KeyRecord("key_2", "prj_2")}, complete=True)

    with pytest.raises(OtherInstallation):
        stray.update(derive)
    assert attempts == [1]
    assert published(ours, tmp_path)
    taker.close()


def test_what_is_of_an_earlier_version_is_taken_by_who_publishes_first(
    ours: RedisSnapshotWriter, stray: RedisSnapshotWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(snapshot_writer, "new_epoch", lambda _installation: b"0123456789abcdef")
        stray.update(lambda: EVERYTHING)
    assert ours.differs(EVERYTHING)
    # A change is enough, and takes nothing from anybody.
    ours.update(lambda: Publication(keys={STRAY: KeyRecord("key_2", "prj_2")}))
    assert published(ours, tmp_path)
    with pytest.raises(OtherInstallation):
        stray.version()


def test_an_emptied_redis_is_not_taken_by_a_host_that_had_it_from_another_one(
    ours: RedisSnapshotWriter, server: RedisServer, tmp_path: Path
) -> None:
    ours.update(lambda: EVERYTHING)
    server.command("FLUSHALL")
    # As on a host of proxies, whose copy is from there.
    stray = RedisSnapshotWriter(server.url, tmp_path / "ours", OTHERS)
    with pytest.raises(OtherInstallation):
        stray.update(lambda: NOTHING_AT_ALL)
    stray.close()
    assert owner_at(server.url, tmp_path / "ours") == OURS.id
    assert owner_at(server.url, tmp_path / "nowhere") is None
    assert not (tmp_path / "nowhere").exists()
    assert ours.update(lambda: EVERYTHING)
    assert published(ours, tmp_path)
    assert owner_at(server.url, tmp_path / "nowhere") == OURS.id


def test_one_takes_it_over_where_the_operator_says_so(
    ours: RedisSnapshotWriter, stray: RedisSnapshotWriter, server: RedisServer, tmp_path: Path
) -> None:
    stray.update(lambda: Publication(keys={STRAY: KeyRecord("key_2", "prj_2")}, complete=True))
    taker = RedisSnapshotWriter(server.url, tmp_path / "taker", OURS, take_over=True)
    assert taker.version() == 0
    assert taker.differs(EVERYTHING)
    assert taker.update(lambda: EVERYTHING)
    assert not taker.differs(EVERYTHING)
    taker.close()
    reader = LmdbSnapshotReader(tmp_path / "taker")
    assert (reader.key(KEY), reader.key(STRAY)) == (EVERYTHING.keys[KEY], None)
    reader.close()
    assert not ours.differs(EVERYTHING)
    with pytest.raises(OtherInstallation):
        stray.version()


def test_prices_of_the_operators_are_kept_of_the_own_installation_only(
    ours: RedisSnapshotWriter, stray: RedisSnapshotWriter, server: RedisServer, tmp_path: Path
) -> None:
    prices = {"openai": (PriceRow({"equals": "a"}, ModelPrice(input=1), "a"),)}
    assert ours.kept_prices() == {}
    ours.update(lambda: Publication(prices=prices, own_prices=prices, complete=True))
    assert ours.kept_prices() == prices
    taker = RedisSnapshotWriter(server.url, tmp_path / "ours", OTHERS, take_over=True)
    assert taker.kept_prices() == {}
    taker.close()
    ours.update(lambda: Publication(prices=prices, complete=True))
    assert ours.kept_prices() == {}


def test_the_recorder_of_another_one_tells_nothing_of_its_totals(
    ours: RedisSnapshotWriter, server: RedisServer
) -> None:
    """What it knows of our organizations is that nothing was spent."""
    redis = Blocking(server.url)
    redis.redis.sadd(WANTED, "org_1")
    ours.update(lambda: EVERYTHING)
    accounts = RedisAccounts(redis, OTHERS.id, OTHERS.database, lambda: NOTHING)
    before = sorted(redis.redis.keys())
    for tell in (accounts.wanted, lambda: accounts.write({"org_1": {}}, {"jrn_1": Place(0, 1)}, {})):
        with pytest.raises(NotTold, match=r"stray\.db.*WATCHLLM_DATABASE_URL"):
            tell()
    redis.redis.delete(STATE)
    emptied = RedisAccounts(redis, OTHERS.id, OTHERS.database, lambda: Position(b"%b.1" % OURS.id.encode(), 7))
    with pytest.raises(NotTold):
        emptied.wanted()
    assert {*before} - {STATE} == {*redis.redis.keys()}
    assert RedisAccounts(redis, OURS.id, OURS.database, lambda: NOTHING).wanted() == {"org_1"}
    redis.close()
