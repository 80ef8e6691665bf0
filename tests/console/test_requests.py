"""The console as a script, or an attacker, talks to it."""

import httpx
import pytest

from tests.console.conftest import RunningConsole, form_token, sign_in
from tests.support.journal import event, journal_in, usage_in
from tests.support.product import Installation
from tests.support.waiting import wait_for
from watchllm.compose.control import bootstrap
from watchllm.console.throttle import MAX_FAILURES
from watchllm.control import keys, organizations, users
from watchllm.control.tables import users as users_table
from watchllm.domain.usage_event import Attempt

SESSION = "watchllm_session"


def add_user(console: RunningConsole, email: str, *, organization: str | None = None) -> users.User:
    with console.installation.control_plane() as plane, plane.database.unit_of_work("tests") as work:
        home = organizations.create(work, organization) if organization else organizations.default(work)
        return users.create(work, home.id, email, "a good password", "developer")


def test_health_needs_no_sign_in_and_everything_else_does(console: RunningConsole) -> None:
    with console.client() as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/").headers["location"] == "/sign-in"
        assert client.get("/live").status_code == 401
        client.cookies.set(SESSION, "eyJ1c2VyX2lkIjoieCJ9.forged")
        assert client.get("/").headers["location"] == "/sign-in"


def test_the_session_cookie_is_out_of_reach_of_scripts_and_ends(console: RunningConsole) -> None:
    with console.client() as client:
        answer = sign_in(client, console.first.email.upper(), console.first.password)
        [cookie] = [line for line in answer.headers.get_list("set-cookie") if line.startswith(SESSION)]
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=604800"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


def test_behind_tls_cookies_never_travel_in_the_clear(console: RunningConsole) -> None:
    process, port = console.installation.start_console(
        environment={"WATCHLLM_PUBLIC_URL": "https://watchllm.example.com"}
    )
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/sign-in", trust_env=False)
    finally:
        process.stop()
    assert answer.headers["set-cookie"].startswith("__Host-watchllm_browser=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]


def test_signing_in_leads_to_the_console_whatever_was_asked_for(console: RunningConsole) -> None:
    with console.client() as client:
        answer = sign_in(client, console.first.email, console.first.password, next="https://evil.example", to="//evil")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/theme"])
@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("0" * 64, {}),
        ("ours", {"Origin": "https://evil.example"}),
        ("ours", {"Origin": "null"}),
        ("ours", {"Sec-Fetch-Site": "cross-site"}),
        ("ours", {"Sec-Fetch-Site": "same-site"}),
        ("another browser's", {}),
    ],
)
def test_a_form_that_another_site_sends_changes_nothing(
    console: RunningConsole, path: str, token: str, headers: dict[str, str]
) -> None:
    with console.signed_in() as client, console.client() as other:
        if token == "ours":
            token = form_token(client, "/")
        elif token:
            token = token if token.startswith("0") else form_token(other)
        before = dict(client.cookies)
        data = {"form_token": token, "theme": "dark", "email": "a@b", "password": "c"}
        assert client.post(path, data=data, headers=headers).status_code == 403
        assert dict(client.cookies) == before
        assert client.get("/").status_code == 200


def test_a_form_from_before_the_sign_in_is_worth_nothing_after_it(console: RunningConsole) -> None:
    with console.client() as client:
        early = form_token(client)
        sign_in(client, console.first.email, console.first.password)
        assert client.post("/sign-out", data={"form_token": early}).status_code == 403


def test_a_form_of_our_own_passes_with_what_browsers_add(console: RunningConsole) -> None:
    with console.signed_in() as client:
        headers = {"Origin": console.url, "Sec-Fetch-Site": "same-origin"}
        data = {"form_token": form_token(client, "/"), "theme": "dark"}
        assert client.post("/theme", data=data, headers=headers).status_code == 303


def test_what_is_no_form_of_ours_is_refused(console: RunningConsole) -> None:
    with console.client() as client:
        client.get("/sign-in")
        assert client.post("/sign-in", json={"email": "a"}).status_code == 415
        assert client.post("/sign-in", data={"email": "a" * 20_000}).status_code == 413
        assert client.post("/sign-in", data={f"f{n}": "x" for n in range(50)}).status_code == 400
        binary = {"Content-Type": "application/x-www-form-urlencoded"}
        assert client.post("/sign-in", content=b"\xff\xfe", headers=binary).status_code == 400
        assert client.put("/sign-in").status_code == 405


@pytest.mark.parametrize(
    "path", ["/", "/sign-in", "/live", "/static/console.css", "/no/such/page", "/static/../app.py"]
)
def test_every_answer_carries_the_security_headers(console: RunningConsole, path: str) -> None:
    with console.client() as client:
        headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'; script-src 'self'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers
    # Pages hold amounts and prefixes of keys; style sheets are asked for again, so that an upgrade shows at once.
    assert headers.get_list("cache-control") == ["no-cache" if path == "/static/console.css" else "no-store"]


def test_failures_are_bounded_for_an_account_and_an_address(console: RunningConsole) -> None:
    add_user(console, "guessed@example.com")
    with console.client() as client:
        guesses = [sign_in(client, "guessed@example.com", f"guess {n}") for n in range(MAX_FAILURES)]
        assert {answer.status_code for answer in guesses} == {401}
        refused = sign_in(client, " GUESSED@example.com", "a good password")
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 301
        assert SESSION not in client.cookies
        assert sign_in(client, console.first.email, console.first.password).status_code == 303


def test_an_unknown_address_reads_like_a_wrong_password(console: RunningConsole) -> None:
    add_user(console, "known@example.com")
    with console.client() as client:
        known = sign_in(client, "known@example.com", "wrong")
        unknown = sign_in(client, "nobody@example.com", "wrong")
    assert known.status_code == unknown.status_code == 401
    assert known.text.replace("known@example.com", "") == unknown.text.replace("nobody@example.com", "")


def test_a_user_sees_the_own_organization_only(console: RunningConsole) -> None:
    add_user(console, "stranger@example.com", organization="Another company")
    with console.client() as client:
        assert sign_in(client, "stranger@example.com", "a good password").status_code == 303
        page = client.get("/").text
    assert "Another company" in page
    assert "No project yet" in page
    assert console.first.project_id not in page
    assert console.first.key[:12] not in page


def test_who_is_no_user_any_more_is_signed_out(console: RunningConsole) -> None:
    user = add_user(console, "leaver@example.com")
    with console.client() as client:
        sign_in(client, "leaver@example.com", "a good password")
        assert client.get("/").status_code == 200
        with console.installation.control_plane() as plane, plane.database.unit_of_work("tests") as work:
            work.connection.execute(users_table.delete().where(users_table.c.id == user.id))
        assert client.get("/").headers["location"] == "/sign-in"
        assert client.get("/live").status_code == 401


def test_names_are_text_and_never_markup(console: RunningConsole) -> None:
    console.installation.project("<script>alert(1)</script>")
    with console.signed_in() as client:
        page = client.get("/").text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page


def test_the_console_publishes_what_was_saved_but_not_published(console: RunningConsole) -> None:
    project = console.installation.project("to be revoked")
    assert console.proxy.get("/v1/models", project.key).status == 200
    with console.installation.control_plane() as plane:
        [key] = plane.keys(project.id)
        # As a command that was killed between its commit and its publication leaves it.
        with plane.database.unit_of_work("tests") as work:
            keys.revoke(work, key.id)
    wait_for(lambda: console.proxy.get("/v1/models", project.key).status == 401, "the refusal of the revoked key")


def test_without_a_proxy_its_numbers_are_unknown_and_not_zero(installation: Installation) -> None:
    first = bootstrap(installation.configuration())
    assert first is not None
    _, port = installation.start_console()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
        sign_in(client, first.email, first.password)
        page = client.get("/live").text
    assert page.count('<p class="figure">unknown</p>') == 3
    assert "No proxy runs on this host" in page
    assert "in step" not in page


def test_a_project_is_told_which_of_its_provider_keys_are_refused(console: RunningConsole) -> None:
    installation = console.installation
    with installation.control_plane() as plane:
        project = console.first.project_id
        refused, used, unused = (plane.add_provider_key(project, "openai", f"sk-{word}") for word in ("a", "b", "c"))
    journal = journal_in(installation.home)
    for second, (key, status) in enumerate(((refused, 200), (refused, 401), (used, 401), (used, 200))):
        attempts = (Attempt("openai", "gpt", status, second * 1_000_000, 9, key_id=key.id),)
        journal.settled(event(project_id=project, attempts=attempts))
    journal.close()
    with usage_in(installation.home) as usage:
        usage.record()
    with console.signed_in() as client:
        page = client.get("/").text
    with installation.control_plane() as plane:
        for key in (refused, used, unused):
            plane.remove_provider_key(key.id)
    assert page.count("refused by the provider") == 1
    assert page.count("✓ used") == 1
    assert page.count("not used yet") == 1
