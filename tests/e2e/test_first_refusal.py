"""What a fresh process tells those for whom it has no room: it does not know yet how long calls take."""

from contextlib import ExitStack

from tests.support.product import Installation, Sim, upstream_environment
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.waiting import wait_for


def test_it_does_not_send_them_away_for_as_long_as_one_may_wait(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url) | {
        "WATCHLLM_MAX_UPSTREAM": "1",
        "WATCHLLM_MAX_QUEUED": "1",
        "WATCHLLM_QUEUE_TIMEOUT": "60",
    }
    project = installation.project("many", settings={"semantic": "off"})
    proxy = installation.start_proxy()
    with ExitStack() as stack:

        def ask(number: int) -> RawConnection:
            body = {"model": "gpt-4o-mini+hang", "messages": [{"role": "user", "content": f"Number {number}?"}]}
            connection = stack.enter_context(RawConnection(proxy.port))
            connection.send(request_bytes("/v1/chat/completions", key=project.key, body=body))
            return connection

        ask(0)
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        # One of these waits, whichever came first; another finds no room.
        waiting = [ask(1), ask(2)]
        refused = wait_for(lambda: [one for one in waiting if _has_answer(one)], "a refusal")[0].response(b"POST")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "overloaded")
        # Of calls of which none has ended it is known for how long they have been under way: for less than a minute.
        assert 1 <= int(refused.header("Retry-After") or "") < 60


def _has_answer(connection: RawConnection) -> bool:
    connection._socket.settimeout(0.02)
    try:
        connection._received += connection._socket.recv(65_536)
    except TimeoutError:
        pass
    connection._socket.settimeout(10)
    return bool(connection._received)
