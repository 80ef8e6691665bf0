"""A console with a proxy beside it, both real processes over one home, and a real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.processes import BackgroundProcess
from tests.support.product import Gateway, Installation
from tests.support.servers import require_server
from watchllm.compose.control import bootstrap
from watchllm.control.first_run import FirstRun

INSTANCE_SECRET = "sk-instance-secret-4321"
_CHROMIUM = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@dataclass
class RunningConsole:
    """`first` is what the first run showed: sign-in, project and key."""

    installation: Installation
    proxy: Gateway
    process: BackgroundProcess
    url: str
    first: FirstRun

    def client(self) -> httpx.Client:
        """A browser of the plainest kind: it keeps cookies and follows no redirect by itself."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=20)

    @contextmanager
    def signed_in(self) -> Iterator[httpx.Client]:
        with self.client() as client:
            assert sign_in(client, self.first.email, self.first.password).status_code == 303
            yield client


def form_token(client: httpx.Client, path: str = "/sign-in") -> str:
    return client.get(path).text.partition('name="form_token" value="')[2].partition('"')[0]


def sign_in(client: httpx.Client, email: str, password: str, **more: str) -> httpx.Response:
    form = {"email": email, "password": password, "form_token": form_token(client), **more}
    return client.post("/sign-in", data=form)


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    installation = Installation(tmp_path_factory.mktemp("console") / "home", {"OPENAI_API_KEY": INSTANCE_SECRET})
    first = bootstrap(installation.configuration())
    assert first is not None
    proxy = installation.start_proxy()
    process, port = installation.start_console(environment={"WATCHLLM_PROXY_PORT": str(proxy.port)})
    yield RunningConsole(installation, proxy, process, f"http://127.0.0.1:{port}", first)
    process.stop()
    proxy.stop()


# Of the module: while its driver runs, no other test could start an event loop in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = require_server("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False, args=_CHROMIUM)
        yield browser
        browser.close()
