"""What the end-to-end tests share beside tests/support/fixtures.py."""

from collections.abc import Iterator

import pytest

from tests.support.admin import status_of
from tests.support.fixtures import shared_cache
from tests.support.product import Gateway, Installation, Sim, upstream_environment


@pytest.fixture(autouse=True)
def nothing_failed_inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test, whatever it sends, may run into a bug that the proxy has to answer with 500 `internal_error`."""
    shared = [name for name in ("gateway", "open_gateway") if name in request.fixturenames]
    gateways = [request.getfixturevalue(name) for name in shared]
    before = [status_of(gateway)["internal_errors"] for gateway in gateways]
    yield
    for gateway, count in zip(gateways, before, strict=True):
        assert gateway.process.exit_code is None, "the proxy ended"
        assert status_of(gateway)["internal_errors"] == count, gateway.process.log()


@pytest.fixture(scope="session")
def open_gateway(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """As `gateway`, but project-supplied base URLs may be private addresses, which those of tests are."""
    environment = upstream_environment(shared_sim.base_url) | {"WATCHLLM_ALLOW_PRIVATE_URLS": "true"}
    folder = tmp_path_factory.mktemp("open-gateway")
    with shared_cache(folder) as redis:
        installation = Installation(folder / "home", environment | redis)
        installation.project("first")
        proxy = installation.start_proxy()
        yield proxy
        proxy.stop()
