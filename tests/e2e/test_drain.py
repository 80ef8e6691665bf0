"""The end of a proxy: what was accepted is finished, what comes meanwhile is told to come again, nothing is cut."""

import signal
import threading

import pytest

from tests.support.admin import status_of
from tests.support.product import Gateway, Installation, Sim, upstream_environment
from tests.support.raw_http import ConnectionClosed, RawConnection, request_bytes
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"


@pytest.fixture
def proxy(installation: Installation, sim: Sim) -> Gateway:
    installation.environment |= upstream_environment(sim.base_url) | {"WATCHLLM_DRAIN_SECONDS": "15"}
    installation.project("first")
    return installation.start_proxy()


def chat(key: str, model: str, *, stream: bool = False) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Last words?"}], "stream": stream}
    return request_bytes(CHAT, key=key, body=body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_under_way_is_finished(proxy: Gateway, sim: Sim, number: int) -> None:
    project = proxy.installation.project("draining")
    with RawConnection(proxy.port) as whole, RawConnection(proxy.port) as streamed, RawConnection(proxy.port) as idle:
        idle.send(request_bytes("/health"))
        assert idle.response().status == 200
        whole.send(chat(project.key, "gpt-4o-mini+slow-2s"))
        streamed.send(chat(project.key, "gpt-4o-mini+chunk-100ms+tokens-20", stream=True))
        wait_for(lambda: sim.stats()["open"] == 2, "both calls upstream")
        proxy.process.signal(number)
        answer = whole.response(b"POST")
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert answer.json()["choices"]
        assert streamed.response(b"POST").body.endswith(b"data: [DONE]\n\n")
        for connection in (whole, streamed, idle):
            assert connection.is_closed_by_peer()
    assert proxy.process.wait() == 0


def test_a_request_that_comes_meanwhile_is_told_to_come_again(proxy: Gateway, sim: Sim) -> None:
    project = proxy.installation.project("draining")
    with RawConnection(proxy.port) as under_way, RawConnection(proxy.port) as kept, RawConnection(proxy.port) as begun:
        kept.send(request_bytes("/health"))
        assert kept.response().status == 200
        wait_for(lambda: status_of(proxy)["connections"] == 3, "all connections")
        under_way.send(chat(project.key, "gpt-4o-mini+slow-2s"))
        data = chat(project.key, "gpt-4o")
        begun.send(data[:-20])
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        wait_for(lambda: status_of(proxy)["inflight_bytes"] > 0, "the begun request")
        proxy.process.signal(signal.SIGTERM)

        def refused() -> bool:
            with RawConnection(proxy.port) as late:
                late.send(chat(project.key, "gpt-4o-mini"))
                answer = late.response(b"POST")
                if answer.status == 200:
                    return False
                assert (answer.status, answer.json()["error"]["code"]) == (503, "shutting_down")
                assert answer.header("Retry-After")
                assert late.is_closed_by_peer()
                return True

        wait_for(refused, "the drain to begin", every=0.001)
        kept.send(chat(project.key, "gpt-4o-mini"))
        assert kept.response(b"POST").json()["error"]["code"] == "shutting_down"
        begun.send(data[-20:])
        assert begun.response(b"POST").status == 200
        assert under_way.response(b"POST").status == 200
    assert proxy.process.wait() == 0


def test_no_accepted_request_is_cut_under_load(proxy: Gateway, sim: Sim) -> None:
    project = proxy.installation.project("busy")
    proxy.chat(project.key, "Hit me")
    outcomes: list[int | str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                outcomes.append(proxy.chat(project.key, "Hit me").status)
            except ConnectionClosed as closed:
                # Reached the kernel, and nobody accepted it any more.
                outcomes.append("cut" if closed.received else "closed")
                return
            except OSError:
                outcomes.append("refused")
                return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(outcomes) > 100, "some load")
    proxy.process.signal(signal.SIGTERM)
    code = proxy.process.wait()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert code == 0
    assert "cut" not in outcomes
    assert set(outcomes) <= {200, 503, "closed", "refused"}


def test_a_stream_that_takes_too_long_is_ended_with_the_drain(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url) | {"WATCHLLM_DRAIN_SECONDS": "0.3"}
    project = installation.project("endless")
    proxy = installation.start_proxy()
    with RawConnection(proxy.port) as connection:
        connection.send(chat(project.key, "gpt-4o-mini+stall-3", stream=True))
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        proxy.process.signal(signal.SIGTERM)
        assert proxy.process.wait() == 0
    wait_for(lambda: sim.stats()["open"] == 0, "the end of the call upstream")
