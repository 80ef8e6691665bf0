"""Quotas and budgets through the socket, with a recorder: exact among many, and remembered whatever is killed."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.admin import dependency_of
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.waiting import wait_for
from watchllm.control.organizations import parse_changes
from watchllm.domain.settings import parse_settings

pytestmark = pytest.mark.usefixtures("one_day")


@pytest.fixture
def home(installation: Installation, sim: Sim) -> Installation:
    installation.environment.update(upstream_environment(sim.base_url))
    installation.project("first")
    return installation


@pytest.fixture
def proxy(home: Installation) -> Gateway:
    home.start_recorder()
    return home.start_proxy()


def project_with(home: Installation, **settings: object) -> Project:
    return home.project("limited", settings={name: str(value) for name, value in settings.items()})


def ask(gateway: Gateway, project: Project, text: str, **fields: object) -> RawResponse:
    return gateway.chat(project.key, text, **fields)


def cost_of(answer: RawResponse) -> float:
    return float(answer.header("x-watchllm-cost-usd") or "nan")


def test_billable_requests_are_counted_hits_included_and_refused_beyond_the_quota(proxy: Gateway) -> None:
    project = project_with(proxy.installation, monthly_requests=3)
    assert ask(proxy, project, "one").header("x-quota-limit") == "3"
    assert ask(proxy, project, "one").header("x-watchllm-cache") == "HIT"
    assert ask(proxy, project, "free", model="sim/echo").status == 200
    assert proxy.post("/v1/chat/completions", project.key, {"model": "gpt-4o-mini"}).status >= 400
    third = ask(proxy, project, "two")
    assert third.status == 200
    refused = ask(proxy, project, "one")
    assert (refused.status, refused.json()["error"]["code"]) == (429, "quota_exceeded")
    assert (refused.header("x-quota-remaining"), refused.header("x-should-retry")) == ("0", "false")
    assert int(refused.header("retry-after") or "0") > 0
    assert ask(proxy, project, "free again", model="sim/echo").status == 200


def test_a_stream_that_its_client_leaves_counts_and_one_that_never_began_does_not(proxy: Gateway, sim: Sim) -> None:
    project = project_with(proxy.installation, monthly_requests=1)
    chat = {"messages": [{"role": "user", "content": "how long?"}], "stream": True}
    for model, awaited in (("gpt-4o-mini+slow-3s", b""), ("gpt-4o-mini+tokens-100+stall-40", b"data: ")):
        with RawConnection(proxy.port) as connection:
            data = request_bytes("/v1/chat/completions", key=project.key, body={**chat, "model": model})
            connection.send(data)
            received = b""
            if awaited:
                while received.count(awaited) < 5:
                    received += connection.receive()
            else:
                wait_for(lambda: sim.calls(), "the call to be under way")
    wait_for(lambda: ask(proxy, project, "another").status == 429, "the one to be counted that was begun")

    def counted() -> bool:
        return bool(proxy.installation.run_json("usage", "spent", project.id)["requests_month"] == 1)

    wait_for(counted, "the database to count it, too")


def test_many_at_once_never_overshoot_a_budget(proxy: Gateway, sim: Sim) -> None:
    home = proxy.installation
    unlimited = project_with(home)
    once = cost_of(ask(proxy, unlimited, "a question 000", max_tokens=50))
    assert once > 0
    budget = once * 100
    project = project_with(home, budget_usd_month=f"{budget:.9f}")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: ask(proxy, project, f"a question {n:03}", max_tokens=50), range(500)))
    served = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 429}
    # Each answer's own line was rounded to the micro-dollar, by half of one at most.
    assert sum(map(cost_of, served)) <= budget + 0.51e-6 * len(served)
    assert len(served) >= 50
    # As long as calls are under way, what they hold may come back.
    for answer in answers:
        if answer.status == 429 and answer.json()["error"]["code"] != "insufficient_quota":
            assert answer.json()["error"]["code"] == "concurrency_exceeded"
            assert (answer.header("retry-after"), answer.header("x-should-retry")) == ("1", None)
    # Some of it came back; no call is under way now, and so what is refused in the end is so for good.
    in_the_end = (ask(proxy, project, f"a question {n:03} again", max_tokens=50) for n in range(500))
    refused = next(answer for answer in in_the_end if answer.status == 429)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert refused.header("x-should-retry") == "false"
    assert 0 < int(refused.header("retry-after") or "0") <= 31 * 86_400
    # What is answered from the cache costs nothing.
    known = next(number for number, answer in enumerate(answers) if answer.status == 200)
    again = ask(proxy, project, f"a question {known:03}", max_tokens=50)
    assert (again.status, again.header("x-watchllm-cache")) == (200, "HIT")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_used_is_known_after_the_proxy_has_ended(home: Installation, how: int) -> None:
    home.start_recorder()
    project = project_with(home, monthly_requests=5)
    first = home.start_proxy()
    for number in range(3):
        assert ask(first, project, f"question {number}").status == 200
    first.process.signal(how)
    first.process.wait()
    second = home.start_proxy()
    assert [ask(second, project, f"more {number}").status for number in range(3)] == [200, 200, 429]


def test_what_was_used_is_known_before_the_recorder_has_brought_it_anywhere(home: Installation) -> None:
    project = project_with(home, monthly_requests=4)
    recorder = home.start_recorder()
    first = home.start_proxy()
    assert ask(first, project, "one").status == 200
    wait_for(lambda: (home.home / "ledger").exists(), "the ledger")
    recorder.stop()
    assert [ask(first, project, text).status for text in ("two", "three")] == [200, 200]
    first.process.signal(signal.SIGKILL)
    first.process.wait()
    # No recorder: what it had counted, and the journals.
    second = home.start_proxy()
    assert [ask(second, project, text).status for text in ("four", "five")] == [200, 429]


def test_without_a_word_from_any_recorder_quotas_are_not_served_and_others_are(home: Installation) -> None:
    project = project_with(home, monthly_requests=4)
    other = project_with(home)
    proxy = home.start_proxy()
    assert ask(proxy, other, "one").status == 200
    refused = ask(proxy, project, "one")
    assert refused.status == 503
    assert "not known yet" in refused.json()["error"]["message"]
    assert refused.header("retry-after") == "1"
    assert "recorder" in str(dependency_of(proxy, "limits"))
    home.start_recorder()
    wait_for(lambda: ask(proxy, project, "one").status == 200, "the quota to be known")


def test_a_budget_that_is_set_later_counts_what_was_spent_before(proxy: Gateway) -> None:
    home = proxy.installation
    project = project_with(home)
    spent = sum(cost_of(ask(proxy, project, f"question {number}")) for number in range(3))
    with home.control_plane() as plane:
        plane.set_project(project.id, parse_settings({"budget_usd_total": f"{spent:.9f}"}))
    refused = ask(proxy, project, "one more")
    assert (refused.status, refused.json()["error"]["code"]) == (429, "insufficient_quota")


def test_a_plan_limits_all_projects_of_its_organization(proxy: Gateway) -> None:
    home = proxy.installation
    first, second = project_with(home), project_with(home)
    (home.home / "plans.toml").write_text('[small]\ntier = "free"\nmonthly_requests = 2\novertime = 1\n')
    with home.control_plane() as plane:
        organization = plane.all_organizations()[0].id
    broken = home.run("organization", "set", organization, "plan=small", check=False)
    assert broken.returncode == 1
    assert "overtime" in broken.stderr
    (home.home / "plans.toml").write_text('[small]\ntier = "free"\nmonthly_requests = 2\noverage_usd_per_1000 = 1000\n')
    home.run("organization", "set", organization, "plan=small")
    assert [ask(proxy, project, "x").status for project in (first, second, first)] == [200, 200, 429]
    with home.control_plane() as plane:
        plane.set_organization(organization, parse_changes({"overage_cap_usd": "2"}))
    answers = [ask(proxy, project, "x") for project in (first, second, first)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].header("x-quota-remaining") == "0"


def test_organizations_have_plans_of_their_own(proxy: Gateway) -> None:
    home = proxy.installation
    assert home.run("organization", "create", "Acme", "--plan", "fre", check=False).returncode == 2
    assert home.run("organization", "create", "  ", check=False).returncode == 2
    assert home.run("project", "create", "a", "--organization", "org_none", check=False).returncode == 1
    (home.home / "plans.toml").write_text('[tiny]\ntier = "free"\nrequests_per_minute = 1\n')
    keys = []
    for name in ("Acme", "Umbrella"):
        organization = home.run_json("organization", "create", name, "--plan", "tiny")
        assert (organization["name"], organization["plan"]) == (name, "tiny")
        project = home.run_json("project", "create", name, "--organization", organization["id"])
        assert project["organization_id"] == organization["id"]
        keys.append(home.key(project["id"]))
    assert [proxy.chat(key, "hello").status for key in (keys[0], keys[0], keys[1], keys[1])] == [200, 429, 200, 429]
    assert ask(proxy, project_with(home), "hello").status == 200


def test_what_was_spent_can_be_looked_up(proxy: Gateway) -> None:
    home = proxy.installation
    project = project_with(home)
    cost = sum(cost_of(ask(proxy, project, text)) for text in ("one", "two"))
    assert ask(proxy, project, "one").header("x-watchllm-cache") == "HIT"

    def spent() -> dict[str, object] | None:
        found = home.run_json("usage", "spent", project.id)
        return dict(found) if found["requests_month"] == 3 else None

    found = wait_for(spent, "the recorder to bring three requests into the database")
    for name in ("usd_day", "usd_month", "usd_total"):
        # Each answer's own line was rounded to the micro-dollar.
        assert float(str(found[name])) == pytest.approx(cost, abs=1.1e-6)
    assert found["alerts"] == []
    home.run("project", "set", project.id, "budget_usd_month=0", "budget_mode=alert")
    alerted = home.run("usage", "spent", project.id)
    assert "budget_usd_month=0 is over, alert only: " in alerted.stderr
    assert "budget_usd_month" in alerted.stdout
    unknown = home.run("usage", "spent", "prj_nobody", check=False)
    assert (unknown.returncode, "no project has the id" in unknown.stderr) == (1, True)
    assert home.run("usage", "spent", "nobody", check=False).returncode == 1


def test_what_nobody_counts_is_charged_for_at_most_what_it_may_have_cost_where_a_budget_holds(proxy: Gateway) -> None:
    home = proxy.installation
    free = project_with(home)
    body = {"model": "gpt-4o-mini", "input": "Hello", "voice": "alloy"}
    assert proxy.post("/v1/audio/speech", free.key, body).status == 200
    project = project_with(home, budget_usd_total="0.001")
    statuses = [proxy.post("/v1/audio/speech", project.key, body).status for _ in range(6)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
