"""One proxy process for each home: a second is refused, and a successor takes over at once."""

import os
import signal

from tests.support.processes import ProcessEnded
from tests.support.product import Installation
from tests.support.raw_http import exchange, request_bytes
from tests.support.waiting import wait_for
from watchllm.stores.home import PROXY_LOCK


def test_a_second_proxy_on_the_same_home_is_refused_and_the_first_goes_on(installation: Installation) -> None:
    project = installation.project()
    first = installation.start_proxy()
    second = installation.run("proxy", "--proxy-port", "0", check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"process {first.process.pid} is the proxy" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.chat(project.key, "Still there?", model="sim/echo").status == 200


def test_a_second_up_on_the_same_home_is_refused(installation: Installation) -> None:
    installation.project()
    first = installation.start_proxy()
    try:
        second = installation.start_up("--no-console")
    except ProcessEnded as error:
        said = str(error)
    else:
        second.stop()
        said = ""
    assert f"process {first.process.pid} is the proxy" in said
    assert "Traceback" not in said


def test_a_killed_proxy_s_home_is_free_at_once(installation: Installation) -> None:
    installation.project()
    installation.start_proxy().process.kill()
    again = installation.start_proxy()
    assert (installation.home / PROXY_LOCK).read_text().strip() == str(again.process.pid)


def test_one_that_up_starts_again_takes_the_home_over(installation: Installation) -> None:
    gateway = installation.start_up("--no-console")
    lock = installation.home / PROXY_LOCK
    before = lock.read_text()
    os.kill(int(before), signal.SIGKILL)
    wait_for(lambda: lock.read_text() != before, "the successor's claim")

    def answers() -> bool:
        try:
            return exchange(gateway.port, request_bytes("/health")).status == 200
        except OSError:
            return False

    wait_for(answers, "the successor's answer")


def test_each_process_says_at_its_start_what_it_is_and_where(installation: Installation) -> None:
    installation.project()
    proxy, recorder = installation.start_proxy(), installation.start_recorder()
    wait_for(lambda: f"proxy  http://127.0.0.1:{proxy.port}\n" in proxy.process.log(), "the proxy to say so")
    wait_for(lambda: f"recorder  {installation.home / 'journal'}\n" in recorder.log(), "the recorder to say so")
