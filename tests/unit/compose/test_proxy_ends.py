"""A proxy process that is told to stop as soon as it takes requests."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.support.ports import free_port
from watchllm.compose import proxy as module
from watchllm.compose.proxy import ProxyProcess
from watchllm.configuration import load


def test_nothing_is_loaded_for_later_once_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ProxyProcess] = []
    monkeypatch.setattr(module, "_WARM_UP_SECONDS", 0)
    monkeypatch.setattr(ProxyProcess, "_warm_up", lambda proxy: loaded.append(proxy))
    configuration = msgspec.structs.replace(load({"home": str(tmp_path / "home")}, {}), proxy_port=free_port())

    async def begin_and_end() -> None:
        proxy = ProxyProcess(configuration, asyncio.get_running_loop())
        await proxy.listen(())
        await proxy.close()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(begin_and_end())
    assert not loaded, "what it would look into is closed by then"
