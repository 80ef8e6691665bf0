"""What a recorder tells Redis of many organizations at once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisCluster, RedisServer
from tests.support.shared_limits import recorder
from watchllm.domain.ledger import Place
from watchllm.journal.shared_ledger import NotTold
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.limits_layout import account_of

ORGANIZATIONS = [f"org_{number}" for number in range(450)]


@pytest.fixture(params=["one server", "a cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    server = RedisServer(tmp_path / "redis") if request.param == "one server" else RedisCluster(tmp_path / "redis")
    yield server.url
    server.stop()


@pytest.fixture
def total(url: str) -> Iterator[Callable[[str], bytes | None]]:
    """What the account of an organization says of its total."""
    redis = Blocking(url)
    yield lambda name: redis.redis.hget(account_of(name), f"L|{name}|t")
    redis.close()


def test_all_that_are_kept_are_told(url: str, total: Callable[[str], bytes | None]) -> None:
    places = {"jrn_1": Place(0, 100)}
    with recorder(url) as accounts:
        for name in ORGANIZATIONS[1:]:
            accounts.write_all(name, {name: {"total": (1, 10)}}, places)
        spent = {name: {name: {"total": (2, number)}} for number, name in enumerate(ORGANIZATIONS, 100)}
        accounts.write(spent, places, {})
    assert [total(name) for name in ORGANIZATIONS] == [
        None,
        *(b"0 %d 2" % number for number in range(101, 100 + len(ORGANIZATIONS))),
    ]


def test_a_server_that_forgot_the_script_is_told_all_the_same(
    tmp_path: Path,
) -> None:
    server = RedisServer(tmp_path / "redis")
    try:
        with recorder(server.url) as accounts:
            accounts.write_all("org_1", {}, {})
            server.command("SCRIPT", "FLUSH")
            accounts.write({name: {name: {"total": (2, 20)}} for name in ("org_1", "org_2")}, {}, {})
        assert b"0 20 2" in server.command("HGET", account_of("org_1"), "L|org_1|t")
    finally:
        server.stop()


def test_what_one_of_them_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    try:
        server.command("SET", account_of("org_2"), "no account")
        with recorder(server.url) as accounts, pytest.raises(NotTold, match="WRONGTYPE"):
            accounts.write({name: {} for name in ("org_1", "org_2", "org_3")}, {}, {})
    finally:
        server.stop()
