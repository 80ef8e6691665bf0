"""The console's pages on limits, as a browser without scripts or an attacker talks to them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.console.conftest import RunningConsole, form_token, sign_in
from tests.support.product import Project
from watchllm.console.pages.limits import PROJECTS
from watchllm.console.pages.limits_of import KEYS
from watchllm.control import organizations, users
from watchllm.domain.settings import parse_settings

PASSWORD = "a good password"


@pytest.fixture
def project(console: RunningConsole) -> Project:
    return console.installation.project("limited")


@contextmanager
def signed_in_as(console: RunningConsole, role: str, *, organization: str | None = None) -> Iterator[httpx.Client]:
    """A new user of this role, of the first or a new organization."""
    with console.installation.control_plane() as plane, plane.database.unit_of_work("tests") as work:
        home = organizations.create(work, organization) if organization else organizations.default(work)
        user = users.create(work, home.id, f"{role}-{work.now_ms}@example.com", PASSWORD, role)
    with console.client() as client:
        assert sign_in(client, user.email, PASSWORD).status_code == 303
        yield client


def form_of(client: httpx.Client, path: str) -> dict[str, str]:
    """The fields of the form on a page, as a browser would send them."""
    page = client.get(path)
    assert page.status_code == 200
    form = re.search(r'<form method="post" action="(/limits[^"]*)".*?</form>', page.text, re.DOTALL)
    assert form is not None
    assert form.group(1) == path
    fields = dict(re.findall(r'<input[^>]*? name="([^"]+)" value="([^"]*)"', form.group()))
    fields |= dict(re.findall(r'<textarea[^>]*? name="([^"]+)"[^>]*>([^<]*)</textarea>', form.group()))
    for name, options in re.findall(r'<select[^>]*? name="([^"]+)">(.*?)</select>', form.group()):
        fields[name] = re.search(r"<option selected>([^<]*)", options).group(1)  # type: ignore[union-attr]
    return fields


def change(client: httpx.Client, path: str, **typed: str) -> httpx.Response:
    return client.post(path, data=form_of(client, path) | typed)


def ask(console: RunningConsole, key: str) -> int:
    return console.proxy.chat(key, "Am I limited?", model="sim/echo").status


def changes_of(console: RunningConsole, object_id: str) -> list[tuple[str, dict[str, object]]]:
    with console.installation.control_plane() as plane:
        lines = plane.audit(limit=1000)
    return [
        (line.actor, line.details) for line in lines if line.object_id == object_id and line.action.endswith(".set")
    ]


def operator_sets(console: RunningConsole, **changes: str) -> None:
    with console.installation.control_plane() as plane:
        plane.set_organization(plane.all_organizations()[0].id, organizations.parse_changes(changes))


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_a_limit_changed_by_the_form_is_enforced_at_the_next_request(
    console: RunningConsole, project: Project, role: str
) -> None:
    path = f"/limits/projects/{project.id}"
    with signed_in_as(console, role) as client:
        assert ask(console, project.key) == 200
        answer = change(client, path, requests_per_minute="0")
        assert ask(console, project.key) == 429
        assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?saved=1")
        assert "✓ Saved" in client.get(answer.headers["location"]).text
        assert change(client, path, requests_per_minute="").status_code == 303
        assert ask(console, project.key) == 200
    first, last = changes_of(console, project.id)[::-1]
    assert first[0].startswith(f"console:{role}-")
    assert (first[1], last[1]) == ({"requests_per_minute": 0}, {"requests_per_minute": None})


def test_a_key_has_a_form_too(console: RunningConsole, project: Project) -> None:
    with console.installation.control_plane() as plane:
        [key] = plane.keys(project.id)
    with console.signed_in() as client:
        assert change(client, f"/limits/keys/{key.id}", requests_per_minute="1").status_code == 303
        assert [ask(console, project.key) for _ in range(2)] == [200, 429]
        page = client.get(f"/limits/projects/{project.id}").text
    assert key.prefix in page
    [(_, details)] = changes_of(console, key.id)
    assert details == {"project": project.id, "requests_per_minute": 1}


def test_the_organization_has_a_form_too_and_limits_tell_the_plan_that_they_are_of(
    console: RunningConsole, project: Project
) -> None:
    file = console.installation.home / "plans.toml"
    file.write_text("[team]\nrequests_per_minute = 0\nconcurrent_requests = 5_000\n")
    path = "/limits/organization"
    with console.signed_in() as client:
        try:
            assert change(client, path, plan="team").status_code == 303
            assert ask(console, project.key) == 429
            page = client.get(f"/limits/projects/{project.id}").text
            assert "0 (plan team)" in page
            assert "5,000 (plan team)" in page
            assert "Plan team" in client.get("/limits").text
            assert change(client, path, concurrent_requests="30").status_code == 303
            page = client.get(f"/limits/projects/{project.id}").text
            assert "5,000" not in page
        finally:
            operator_sets(console, plan="self-hosted", concurrent_requests="")
            file.unlink()
    assert ask(console, project.key) == 200


def test_who_has_a_plan_makes_it_no_wider(console: RunningConsole) -> None:
    path = "/limits/organization"
    with console.signed_in() as client:
        assert change(client, path, plan="free").status_code == 303
        try:
            form = form_of(client, path)
            assert not {"plan", "overage_cap_usd"} & set(form)
            page = client.get(path).text
            assert "<p>free</p>" in page
            assert "enterprise" not in page
            for typed in ({"plan": "enterprise"}, {"overage_cap_usd": "1000"}, {"requests_per_minute": "11"}):
                refused = client.post(path, data=form | {"budget_usd_day": "7"} | typed)
                assert refused.status_code == 403
                assert next(iter(typed)) in refused.text
                assert 'name="budget_usd_day" value="7"' in refused.text
                assert "<p>free</p>" in refused.text
            assert "requests_per_minute=11 is more than the plan free gives, which is 10" in refused.text
            assert change(client, path, requests_per_minute="9", budget_usd_day="7").status_code == 303
        finally:
            operator_sets(console, plan="self-hosted", requests_per_minute="", budget_usd_day="")


def test_a_wrong_value_is_told_in_the_words_of_the_command_and_stays_in_its_field(
    console: RunningConsole, project: Project
) -> None:
    path = f"/limits/projects/{project.id}"
    with console.signed_in() as client:
        answer = change(client, path, requests_per_minute="<many>", budget_usd_day="7")
        assert answer.status_code == 400
        assert "requests_per_minute=&lt;many&gt;: expected a whole number from 0 to 1000000000000" in answer.text
        assert 'name="requests_per_minute" value="&lt;many&gt;"' in answer.text
        assert 'name="budget_usd_day" value="7"' in answer.text
        assert form_of(client, path)["budget_usd_day"] == ""
    assert changes_of(console, project.id) == []


def test_saving_without_a_change_changes_nothing(console: RunningConsole, project: Project) -> None:
    with console.signed_in() as client:
        assert change(client, f"/limits/projects/{project.id}").status_code == 303
    assert changes_of(console, project.id) == []


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(console: RunningConsole, project: Project) -> None:
    path = f"/limits/projects/{project.id}"
    with console.signed_in() as client:
        form = form_of(client, path)
        with console.installation.control_plane() as plane:
            plane.set_project(project.id, parse_settings({"requests_per_minute": "77"}))
        answer = client.post(path, data=form | {"budget_usd_day": "5"})
        assert answer.status_code == 409
        assert "Somebody changed these limits" in answer.text
        assert 'name="requests_per_minute" value="77"' in answer.text
        assert form_of(client, path)["budget_usd_day"] == ""
        assert change(client, path, budget_usd_day="5").status_code == 303
    with console.installation.control_plane() as plane:
        settings = plane.project(project.id).settings
    assert (settings.requests_per_minute, settings.budget_usd_day) == (77, 5.0)


@pytest.mark.parametrize("role", ["developer", "viewer"])
def test_who_may_not_change_limits_sees_them(console: RunningConsole, project: Project, role: str) -> None:
    path = f"/limits/projects/{project.id}"
    with console.signed_in() as admin, signed_in_as(console, role) as client:
        state = form_of(admin, path)["state"]
        assert change(admin, path, requests_per_minute="1234").status_code == 303
        state = form_of(admin, path)["state"]
        page = client.get(path).text
        assert "1,234" in page
        assert f"Your role, {role}, sees limits" in page
        assert "Save limits" not in page
        forged = {"form_token": form_token(client, "/"), "state": state, "requests_per_minute": "9"}
        refused = client.post(path, data=forged)
        assert refused.status_code == 403
        assert f"the role {role} changes nothing" in refused.text
    with console.installation.control_plane() as plane:
        assert plane.project(project.id).settings.requests_per_minute == 1234


def test_another_organizations_limits_do_not_exist(console: RunningConsole, project: Project) -> None:
    with console.installation.control_plane() as plane:
        [key] = plane.keys(project.id)
    with signed_in_as(console, "owner", organization="Another company") as client:
        for path in (f"/limits/projects/{project.id}", f"/limits/keys/{key.id}"):
            assert client.get(path).status_code == 404
            forged = {"form_token": form_token(client, "/"), "state": "", "requests_per_minute": "1"}
            assert client.post(path, data=forged).status_code == 404
        page = client.get("/limits").text
        assert "Another company" in page
        assert project.id not in page
        assert "No project yet" in page
    assert ask(console, project.key) == 200


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("0" * 64, {}),
        ("ours", {"Origin": "https://evil.example"}),
        ("ours", {"Sec-Fetch-Site": "cross-site"}),
        ("another browser's", {}),
    ],
)
def test_a_form_that_another_site_sends_changes_nothing(
    console: RunningConsole, project: Project, token: str, headers: dict[str, str]
) -> None:
    path = f"/limits/projects/{project.id}"
    with console.signed_in() as client, console.client() as other:
        fields = form_of(client, path) | {"requests_per_minute": "1"}
        if token != "ours":
            fields["form_token"] = form_token(other) if token.startswith("another") else token
        assert client.post(path, data=fields, headers=headers).status_code == 403
    assert [ask(console, project.key) for _ in range(2)] == [200, 200]
    assert changes_of(console, project.id) == []


def test_nobody_who_is_not_signed_in_sees_or_changes_anything(console: RunningConsole, project: Project) -> None:
    path = f"/limits/projects/{project.id}"
    with console.client() as client:
        for page in ("/limits", path, "/limits/organization"):
            assert client.get(page).headers["location"] == "/sign-in"
        forged = {"form_token": form_token(client), "requests_per_minute": "1"}
        assert client.post(path, data=forged).headers["location"] == "/sign-in"
    assert changes_of(console, project.id) == []


def test_a_revoked_key_has_no_form(console: RunningConsole, project: Project) -> None:
    with console.installation.control_plane() as plane:
        [key] = plane.keys(project.id)
        plane.revoke_key(key.id)
    with console.signed_in() as client:
        page = client.get(f"/limits/keys/{key.id}").text
        assert "This key was revoked" in page
        assert "Save limits" not in page
        assert "No key in force" in client.get(f"/limits/projects/{project.id}").text


def test_a_broken_file_of_plans_is_told_and_limits_are_there(console: RunningConsole, project: Project) -> None:
    file = console.installation.home / "plans.toml"
    file.write_text("[team]\nprice = 1\n")
    try:
        with console.signed_in() as client:
            for path in ("/limits", f"/limits/projects/{project.id}", "/limits/organization"):
                page = client.get(path).text
                assert "The plans cannot be used now" in page
                assert str(console.installation.home) not in page
            answer = change(client, f"/limits/projects/{project.id}", requests_per_minute="5")
            assert answer.status_code == 503
            assert "The change is saved" in answer.text
            assert str(console.installation.home) not in answer.text
            assert 'name="requests_per_minute" value="5"' in answer.text
    finally:
        file.unlink()


def test_lists_are_bounded_and_have_further_pages(console: RunningConsole) -> None:
    with console.installation.control_plane() as plane:
        made = [plane.create_project(f"listed {number}").id for number in range(PROJECTS + 1)]
        keys = [plane.create_key(made[0], name=f"key {number}").record.id for number in range(KEYS + 1)]
    with console.signed_in() as client:
        assert walked(client, "/limits", "projects")[-len(made) :] == made
        assert walked(client, f"/limits/projects/{made[0]}", "keys") == keys


def walked(client: httpx.Client, path: str, kind: str) -> list[str]:
    """The ids that all pages of a list link to, in order."""
    seen: list[str] = []
    where: str | None = path
    while where is not None:
        page = client.get(where).text
        found = re.findall(rf'<a href="/limits/{kind}/([a-z0-9_]+)">', page)
        assert 0 < len(found) <= max(PROJECTS, KEYS)
        seen += found
        following = re.search(r'<a href="([^"]+)" rel="next">', page)
        where = following.group(1) if following else None
    assert len(set(seen)) == len(seen)
    return seen
