"""Fixtures that every test may use.

For tests through the socket: one `sim` and one `gateway` are started per test worker; isolation comes from the
`project` (and its key) that each test gets of its own, for cache, keys and limits all belong to a project.
"""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.nginx import Nginx, start_nginx
from tests.support.postgres import Connected, Postgres, running_postgres
from tests.support.processes import BackgroundProcess
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for_a_day

if TYPE_CHECKING:
    import openai

# Longer than any test takes that counts what is used of a day or a month.
_WITHIN_ONE_DAY_SECONDS = 40

# No deadline: the machine is shared with other test workers. `make fuzz` runs the same properties for longer.
hypothesis.settings.register_profile("default", deadline=None, max_examples=100, print_blob=True)
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=int(os.environ.get("WATCHLLM_FUZZ_EXAMPLES", "20000")), print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """Processes that tests interrupt must not ignore that, as all do that a shell starts in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests, and what they import, are made and stay: meanwhile the collector would look in vain, and
    later it need not look at them again, which is much of the time of who asks it to collect."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        gc.enable()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the logs of the processes that run beside a failing test."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy sends its result into the generator.
    if report.failed:
        for process in BackgroundProcess.running:
            report.sections.append((f"log of {process.name} (pid {process.pid})", process.log()))


@pytest.fixture
def one_day() -> None:
    """The test is of one day and one month, as quotas and budgets know them: where midnight (UTC) is near, it begins
    after that."""
    wait_for_a_day(_WITHIN_ONE_DAY_SECONDS)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """An empty home folder; what is started in it ends with the test."""
    before = list(BackgroundProcess.running)
    yield Installation(tmp_path / "home")
    for process in [process for process in BackgroundProcess.running if process not in before and not process.shared]:
        process.stop()


@pytest.fixture(scope="session")
def shared_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """The simulated provider behind `gateway`. Tests use `sim`, which is the same with its counters at zero."""
    sim = Installation(tmp_path_factory.mktemp("sim") / "home").start_sim()
    yield sim
    sim.process.stop()


@pytest.fixture
def sim(shared_sim: Sim) -> Sim:
    """The simulated provider behind `gateway`, its counters at zero."""
    shared_sim.reset()
    return shared_sim


@pytest.fixture(scope="session")
def gateway(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A proxy whose OpenAI is the simulated provider. Do not stop it or change it: other tests use it too."""
    folder = tmp_path_factory.mktemp("gateway")
    with shared_cache(folder) as redis:
        installation = Installation(folder / "home", upstream_environment(shared_sim.base_url) | redis)
        installation.project("first")  # Publishes, without which no proxy is ready.
        proxy = installation.start_proxy()
        yield proxy
        proxy.stop()


@contextmanager
def shared_cache(folder: Path) -> Iterator[dict[str, str]]:
    """What puts a gateway's snapshot and cache into a Redis of its own, where WATCHLLM_TEST_REDIS=1 asks for that: the
    same tests, over the other store."""
    if os.environ.get("WATCHLLM_TEST_REDIS") != "1":
        yield {}
        return
    server = RedisServer(folder / "redis")
    try:
        yield server.environment
    finally:
        server.stop()


@pytest.fixture
def project(gateway: Gateway, request: pytest.FixtureRequest) -> Project:
    """A project of `gateway` that no other test knows, and a key of it."""
    return gateway.installation.project(request.node.name[:60])


@pytest.fixture
def client(gateway: Gateway, project: Project) -> "Iterator[openai.OpenAI]":
    """The official client on `gateway` with the key of `project`, its own retries off."""
    import openai

    with openai.OpenAI(base_url=gateway.base_url, api_key=project.key, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[str], Nginx]]:
    """Starts nginx with the given content of its `http` block (see `start_nginx`), any number of times."""
    started: list[Nginx] = []

    def start(http: str) -> Nginx:
        started.append(start_nginx(tmp_path / f"nginx-{len(started)}", http))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test worker; do not stop it: other tests use it too."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres: Postgres) -> Connected:
    """A database that no other test knows, its schema up to date."""
    return Connected(postgres, postgres.database())


@pytest.fixture
def empty_database(postgres: Postgres) -> Connected:
    """A database that no other test knows, and that has nothing in it."""
    return Connected(postgres, postgres.database(empty=True))


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test alone, to be stopped and started."""
    with running_postgres() as server:
        yield server
