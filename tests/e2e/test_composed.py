"""The services of deploy/compose.yaml, started by hand: their commands, with their environment, on their volumes."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.deployed import DEPLOY
from tests.support.ports import free_port
from tests.support.postgres import SECRET_KEY, Connected
from tests.support.processes import BackgroundProcess
from tests.support.product import Gateway, Installation, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for


@dataclass
class Composed:
    """What a `docker compose` would start, as processes of this machine."""

    folder: Path
    services: dict[str, Any]
    places: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, BackgroundProcess] = field(default_factory=dict)

    def installation(self, name: str) -> Installation:
        """What a service knows, and nothing else."""
        service = self.services[name]
        (volume,) = service["volumes"]
        port = self.ports.setdefault(name, free_port())
        environment = {key: self._filled(value) for key, value in service["environment"].items()}
        # Here all are on one machine, where nobody but the balancer would be 172.30.87.10.
        environment |= {"WATCHLLM_PROXY_PORT": str(port), "WATCHLLM_CONSOLE_PORT": str(port)}
        return Installation(self.folder / volume.partition(":")[0], environment)

    def start(self, name: str) -> Gateway:
        installation = self.installation(name)
        process = installation._start(*self.services[name]["command"])
        self.running[name] = process
        return Gateway(process, self.ports[name], installation)

    def stop(self, name: str) -> int:
        """As `docker compose stop` does it: the service's own signal, and its time."""
        number = getattr(signal, self.services[name].get("stop_signal", "SIGTERM"))
        process = self.running[name]
        process.signal(number)
        return process.wait(float(self.services[name]["stop_grace_period"].removesuffix("s")))

    def _filled(self, value: str) -> str:
        filled = re.sub(r"\$\{(\w+):?[-?][^}]*\}", lambda found: self.places.get(found[1], ""), value)
        return self.places.get(filled, filled)


@pytest.fixture
def composed(tmp_path: Path, empty_database: Connected, sim: Sim) -> Iterator[Composed]:
    redis = RedisServer(tmp_path / "redis")
    places = {
        **upstream_environment(sim.base_url),
        "WATCHLLM_SECRET_KEY": SECRET_KEY,
        "redis://:@redis:6379": redis.url,
        "postgresql://watchllm:@postgres:5432/watchllm": empty_database.url,
    }
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("proxy-1", "proxy-2"):
        services[name]["environment"]["OPENAI_BASE_URL"] = sim.base_url
    yield (found := Composed(tmp_path, services, places))
    for process in found.running.values():
        process.stop()
    redis.stop()


def test_they_work_together_and_leave_nothing_behind(composed: Composed, empty_database: Connected) -> None:
    migrate = composed.installation("migrate")
    migrate.run(*composed.services["migrate"]["command"])
    for name in ("recorder-1", "recorder-2"):
        composed.start(name)
    proxies = [composed.start("proxy-1"), composed.start("proxy-2")]
    console = composed.start("console")
    made = console.installation.run_json("db", "upgrade", "--first-run")["first_run"]
    assert console.installation.run_json("db", "upgrade", "--first-run")["first_run"] is None
    for gateway in proxies:
        wait_for(lambda gateway=gateway: _is_ready(gateway), "a proxy that is ready")  # type: ignore[misc]
    wait_for(lambda: proxies[0].chat(made["key"], "Hello").status == 200, "the key to be known")
    wait_for(
        lambda: proxies[1].chat(made["key"], "Hello").header("x-watchllm-cache") == "HIT", "the other one's answer"
    )
    for gateway in proxies:
        assert not (gateway.installation.home / "watchllm.db").exists(), "a proxy opened a database"
    with httpx.Client(base_url=f"http://127.0.0.1:{console.port}", trust_env=False, timeout=20) as client:
        token = client.get("/sign-in").text.partition('name="form_token" value="')[2].partition('"')[0]
        form = {"email": made["email"], "password": made["password"], "form_token": token}
        assert client.post("/sign-in", data=form).status_code == 303
    for name in ("proxy-1", "proxy-2", "recorder-1", "recorder-2", "console"):
        assert composed.stop(name) == 0, name
    states = [state for (state,) in empty_database.execute("SELECT cache FROM watchllm.usage_logs ORDER BY at_ms")]
    assert states[0] == "MISS"
    assert "HIT" in states
    for gateway in proxies:
        assert list((gateway.installation.home / "journal").glob("jnl_*")) == [], "usage that nobody applied"


def _is_ready(gateway: Gateway) -> bool:
    try:
        return gateway.get("/health/ready").status == 200
    except OSError:
        return False
