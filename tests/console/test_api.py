"""The management API over the socket: what it changes is enforced by the proxy at the next request, and nobody changes
with another's token, role or organization."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.console.conftest import RunningConsole
from tests.support.journal import event, journal_in, usage_in
from tests.support.product import Project
from watchllm.console.api.operations import PATHS
from watchllm.console.throttle import MAX_FAILURES
from watchllm.control import organizations
from watchllm.domain import tokens

JSON = {"Content-Type": "application/json"}


class Api:
    """A client with a token; every answer is held against the API's own description."""

    def __init__(self, console: RunningConsole, token: str | None) -> None:
        self._url = f"{console.url}/api"
        self._authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._described = httpx.get(f"{self._url}/openapi.json", trust_env=False, timeout=20).json()

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        options = options if body is None else {"json": body, **options}
        headers = self._authorization | options.pop("headers", {})
        answer = httpx.request(method, self._url + path, headers=headers, trust_env=False, timeout=20, **options)
        template = next((each for each in PATHS if matches(each, answer.request.url.path)), None)
        operation = self._described["paths"].get(template, {}).get(method.lower(), {"responses": {}})
        default = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
        schema = operation["responses"].get(str(answer.status_code), default)["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": self._described["components"]}).validate(answer.json())
        return answer


def matches(template: str, path: str) -> bool:
    wanted, given = template.split("/"), path.removeprefix("/api").split("/")
    return len(wanted) == len(given) and all(a in (b, "{id}") for a, b in zip(wanted, given, strict=True))


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def token(console: RunningConsole, **options: Any) -> str:
    with console.installation.control_plane() as plane:
        return plane.create_token(**options).secret


@pytest.fixture
def api(console: RunningConsole) -> Api:
    return Api(console, token(console, name="tests"))


@pytest.fixture
def viewer(console: RunningConsole) -> Api:
    return Api(console, token(console, role="viewer"))


@pytest.fixture
def project(console: RunningConsole) -> Project:
    return console.installation.project("of the API")


@pytest.fixture
def strange(console: RunningConsole) -> Api:
    """With a token of another organization."""
    with console.installation.control_plane() as plane:
        with plane.database.unit_of_work("tests") as work:
            other = organizations.create(work, "Another company").id
        made = plane.create_token(other)
    return Api(console, made.secret)


def operator_sets(console: RunningConsole, **changes: str) -> None:
    with console.installation.control_plane() as plane:
        plane.set_organization(plane.all_organizations()[0].id, organizations.parse_changes(changes))


def ask(console: RunningConsole, key: str) -> int:
    return console.proxy.chat(key, "Am I limited?", model="sim/echo").status


def test_a_changed_limit_is_enforced_at_the_next_request(console: RunningConsole, api: Api, project: Project) -> None:
    assert [ask(console, project.key) for _ in range(3)] == [200] * 3
    changed = api(
        "PATCH", f"/projects/{project.id}", {"requests_per_minute": 0, "upstream_per_minute": "9", "cache": "off"}
    )
    assert changed.status_code == 200
    settings = changed.json()["settings"]
    assert (settings["requests_per_minute"], settings["upstream_per_minute"], settings["cache"]) == (0, 9, False)
    assert ask(console, project.key) == 429
    assert api("PATCH", f"/projects/{project.id}", {"requests_per_minute": None}).status_code == 200
    assert ask(console, project.key) == 200
    assert api("GET", f"/projects/{project.id}").json()["settings"] == settings | {"requests_per_minute": None}


def test_a_key_is_made_limited_and_revoked(console: RunningConsole, api: Api, project: Project) -> None:
    made = api("POST", f"/projects/{project.id}/keys", {"name": "ci", "expires": "1d"})
    assert made.status_code == 201
    key, path = made.json().pop("key"), f"/keys/{made.json()['id']}"
    assert ask(console, key) == 200
    limited = api("PATCH", path, {"requests_per_minute": 0, "allowed_models": ["sim/*"]})
    assert limited.json()["limits"]["allowed_models"] == ["sim/*"]
    assert ask(console, key) == 429
    assert api("GET", path).json() == limited.json()
    revoked = api("DELETE", path)
    assert revoked.json()["revoked_at"]
    assert ask(console, key) == 401
    assert code_of(api("PATCH", path, {"requests_per_minute": 5})) == (400, "invalid_request")
    assert [row["id"] for row in api("GET", f"/projects/{project.id}/keys").json()["data"]][-1] == revoked.json()["id"]
    assert key not in api("GET", f"/projects/{project.id}/keys").text


def test_a_key_is_limited_from_its_making_on(console: RunningConsole, api: Api, project: Project) -> None:
    body = {"limits": {"requests_per_minute": 0, "allowed_models": ["sim/*"]}}
    made = api("POST", f"/projects/{project.id}/keys", body).json()
    assert ask(console, made["key"]) == 429
    assert made["limits"]["allowed_models"] == ["sim/*"]
    changed = api("PATCH", f"/keys/{made['id']}", {"name": "ci", "expires": "2100-01-01", "scopes": ["cache:write"]})
    assert (changed.json()["name"], changed.json()["scopes"]) == ("ci", ["cache:write"])
    assert changed.json()["expires_at"] == "2100-01-01T00:00:00Z"


def test_a_key_with_limits_of_the_wrong_form_is_not_made(api: Api, project: Project) -> None:
    for limits in ({"requests_per_minute": "many"}, {"allowed_models": []}, {"name": "no limit"}):
        refused = api("POST", f"/projects/{project.id}/keys", {"limits": limits})
        assert code_of(refused) == (400, "invalid_setting")
    assert len(api("GET", f"/projects/{project.id}/keys").json()["data"]) == 1


def test_an_organization_gets_a_plan_and_limits(console: RunningConsole, api: Api, project: Project) -> None:
    assert "starter" in [plan["name"] for plan in api("GET", "/plans").json()["data"]]
    changed = api("PATCH", "/organization", {"plan": "enterprise", "requests_per_minute": 0, "overage_cap_usd": 2.5})
    try:
        assert (changed.json()["plan"], changed.json()["overage_cap_usd"]) == ("enterprise", 2.5)
        assert ask(console, project.key) == 429
        assert [plan["name"] for plan in api("GET", "/plans").json()["data"]] == ["enterprise"]
        for wider in ({"plan": None}, {"plan": "self-hosted"}, {"overage_cap_usd": None}):
            assert code_of(api("PATCH", "/organization", wider)) == (403, "beyond_plan")
        taken = api("PATCH", "/organization", {"requests_per_minute": None})
        assert api("GET", "/organization").json() == taken.json()
    finally:
        operator_sets(console, plan="self-hosted", overage_cap_usd="")
    assert api("GET", "/organization").json() == taken.json() | {"plan": "self-hosted", "overage_cap_usd": None}
    assert ask(console, project.key) == 200
    refused = api("PATCH", "/organization", {"plan": "gold"})
    assert code_of(refused) == (400, "invalid_request")
    assert "no plan is named 'gold'; plans are self-hosted, free" in refused.json()["error"]["message"]


def test_a_plan_gives_no_more_than_it_gives(console: RunningConsole, api: Api) -> None:
    operator_sets(console, plan="free")
    try:
        refused = api("PATCH", "/organization", {"requests_per_minute": 1000})
        assert code_of(refused) == (403, "beyond_plan")
        assert refused.json()["error"]["param"] == "requests_per_minute"
        assert "more than the plan free gives, which is 10" in refused.json()["error"]["message"]
        assert api("PATCH", "/organization", {"requests_per_minute": 5, "budget_usd_day": 99}).status_code == 200
    finally:
        operator_sets(console, plan="self-hosted", requests_per_minute="", budget_usd_day="")


def test_who_waits_for_a_plan_is_told_so_and_nobody_else(console: RunningConsole, api: Api, project: Project) -> None:
    file = console.installation.home / "plans.toml"
    file.write_text("[team]\n")
    with console.installation.control_plane() as plane:
        other = plane.create_organization("Waits", {"plan": "team"}).id
        waiting = Api(console, plane.create_token(other).secret)
    made = waiting("POST", "/projects", {"name": "theirs"}).json()["id"]
    try:
        file.unlink()
        refused = waiting("PATCH", f"/projects/{made}", {"cache": False})
        assert code_of(refused) == (503, "not_published")
        told = refused.json()["error"]["message"]
        assert told.startswith("The change is saved")
        assert not [word for word in (other, "team", str(console.installation.home)) if word in told]
        assert api("PATCH", f"/projects/{project.id}", {"requests_per_minute": 0}).status_code == 200
        assert ask(console, project.key) == 429
        assert waiting("GET", "/plans").json()["data"] == []
        file.write_text("[team")
        for method, path in (("GET", "/plans"), ("PATCH", "/organization")):
            body = {"requests_per_minute": 1} if method == "PATCH" else None
            broken = api(method, path, body)
            assert code_of(broken) == (500, "plans_unusable")
            assert str(console.installation.home) not in broken.text
    finally:
        file.unlink()
        with console.installation.control_plane() as plane:
            plane.set_organization(other, organizations.parse_changes({"plan": "free"}))


def test_documents_and_messages_are_those_of_the_command_line(
    console: RunningConsole, api: Api, project: Project
) -> None:
    run = console.installation.run_json
    [key] = run("key", "list", "--project", project.id)
    assert api("GET", f"/projects/{project.id}").json() == run("project", "show", project.id)
    assert api("GET", f"/keys/{key['id']}").json() == run("key", "show", key["id"])
    assert api("GET", "/plans").json()["data"] == run("plan", "list")
    organization = api("GET", "/organization").json()
    assert organization == run("organization", "show", organization["id"])
    assert api("GET", f"/projects/{project.id}/spent").json() == run("usage", "spent", project.id)
    for path, command in (
        (f"/projects/{project.id}", ["project", "set", project.id]),
        (f"/keys/{key['id']}", ["key", "set", key["id"]]),
    ):
        for name, value in (("requests_per_minute", "many"), ("allowed_ips", "10.0.0.0/99"), ("nonsense", "1")):
            error = api("PATCH", path, {name: value}).json()["error"]
            assert (error["code"], error["param"]) == ("invalid_setting", name)
            refused = console.installation.run(*command, f"{name}={value}", check=False)
            said = " ".join(refused.stderr.replace("│", " ").split())
            assert error["message"] in said


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": 1}, "expected a text, a number"),
        ([], "a list has one or more texts"),
        (["a,b"], "without commas"),
        ([1], "one or more texts"),
        (True, "expected a whole number"),
        (-1, "expected a whole number"),
        (1.5, "expected a whole number"),
    ],
)
def test_a_value_of_the_wrong_form_changes_nothing(api: Api, project: Project, value: object, words: str) -> None:
    before = api("GET", f"/projects/{project.id}").json()
    name = "allowed_models" if isinstance(value, list) else "requests_per_minute"
    refused = api("PATCH", f"/projects/{project.id}", {"cache": False, name: value})
    assert code_of(refused) == (400, "invalid_setting")
    assert words in refused.json()["error"]["message"]
    assert refused.json()["error"]["param"] == name
    assert api("GET", f"/projects/{project.id}").json() == before


def test_a_provider_that_nobody_knows_is_warned_of(api: Api, project: Project) -> None:
    path, body = f"/projects/{project.id}", {"allowed_providers": ["openai", "opnai"], "default_provider": "nope"}
    warnings = api("PATCH", path, body).json()["warnings"]
    assert [warning.partition(":")[0] for warning in warnings] == ["default_provider", "allowed_providers"]
    assert "'opnai' is known (did you mean openai?)" in warnings[1]
    assert "'openai'" not in warnings[1]
    limits = {"allowed_providers": ["opnai"]}
    key = api("POST", f"{path}/keys", {"limits": limits}).json()
    for changed in (
        key,
        api("PATCH", f"/keys/{key['id']}", limits).json(),
        api("PATCH", "/organization", limits).json(),
    ):
        assert ["'opnai'" in warning for warning in changed["warnings"]] == [True]
    for known in ({"allowed_providers": None}, {"allowed_providers": ["sim", "openai"]}):
        assert "warnings" not in api("PATCH", "/organization", known).json()
    api("PATCH", "/organization", {"allowed_providers": None})


def test_what_was_spent_is_told(console: RunningConsole, api: Api, project: Project) -> None:
    journal = journal_in(console.installation.home)
    journal.settled(event(project_id=project.id, cost=1_500_000_000))
    journal.close()
    with usage_in(console.installation.home) as usage:
        usage.record()
    found = api("GET", f"/projects/{project.id}/spent").json()
    assert found["id"] == project.id
    assert found["usd_total"] == "1.500000"


def test_a_viewer_sees_everything_and_changes_nothing(api: Api, viewer: Api, project: Project) -> None:
    [key] = api("GET", f"/projects/{project.id}/keys").json()["data"]
    ids = {"/projects": project.id, "/keys": key["id"]}
    bodies = {"/projects": {"name": "x"}, "/projects/{id}/keys": {}}
    before = api("GET", f"/projects/{project.id}").json()
    for template, operations in PATHS.items():
        path = template.replace("{id}", ids.get(f"/{template.split('/')[1]}", ""))
        for method in operations:
            if method == "GET":
                assert viewer(method, path).json() == api(method, path).json()
            else:
                body = None if method == "DELETE" else bodies.get(template, {"requests_per_minute": 1})
                assert code_of(viewer(method, path, body)) == (403, "role_not_allowed"), (method, path)
    assert api("GET", f"/projects/{project.id}").json() == before
    assert api("GET", f"/keys/{key['id']}").json() == key


def test_another_organizations_things_do_not_exist(api: Api, strange: Api, project: Project) -> None:
    [key] = api("GET", f"/projects/{project.id}/keys").json()["data"]
    assert strange("GET", "/projects").json() == {"data": [], "next": None}
    assert strange("GET", "/organization").json()["name"] == "Another company"
    for method, path, body in (
        ("GET", f"/projects/{project.id}", None),
        ("PATCH", f"/projects/{project.id}", {"requests_per_minute": 1}),
        ("GET", f"/projects/{project.id}/spent", None),
        ("GET", f"/projects/{project.id}/keys", None),
        ("POST", f"/projects/{project.id}/keys", {}),
        ("GET", f"/keys/{key['id']}", None),
        ("PATCH", f"/keys/{key['id']}", {"requests_per_minute": 1}),
        ("DELETE", f"/keys/{key['id']}", None),
    ):
        theirs = strange(method, path, body)
        absent = strange(
            method, path.replace(project.id, "prj_" + "0" * 32).replace(key["id"], "key_" + "0" * 32), body
        )
        assert code_of(theirs) == code_of(absent) == (404, "not_found"), (method, path)
        assert theirs.json()["error"]["message"].replace(project.id, "").replace(key["id"], "") == absent.json()[
            "error"
        ]["message"].replace("prj_" + "0" * 32, "").replace("key_" + "0" * 32, "")
    mine = strange("POST", "/projects", {"name": "theirs"}).json()
    assert mine["organization_id"] == strange("GET", "/organization").json()["id"]
    assert code_of(api("GET", f"/projects/{mine['id']}")) == (404, "not_found")
    assert mine["id"] not in api("GET", "/projects?limit=100").text


def test_lists_come_in_pages(api: Api) -> None:
    for number in range(5):
        api("POST", "/projects", {"name": f"paged {number}"})
    whole = api("GET", "/projects?limit=100").json()
    assert whole["next"] is None
    seen, cursor = [], ""
    while cursor is not None:
        page = api("GET", f"/projects?limit=2{cursor and f'&cursor={cursor}'}").json()
        assert len(page["data"]) == 2 or page["next"] is None
        seen += page["data"]
        cursor = page["next"]
    assert seen == whole["data"]
    for wrong in (
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=",
        "limit=%C2%B2",
        "cursor=",
        "cursor=key_1",
        "cursor=prj_%27",
    ):
        assert code_of(api("GET", f"/projects?{wrong}")) == (400, "invalid_request"), wrong


def test_a_revoked_token_is_refused_at_once(console: RunningConsole, project: Project) -> None:
    made = console.installation.run_json("token", "create", "--name", "to be revoked", "--expires", "1h")
    api = Api(console, made["token"])
    assert api("GET", "/projects").status_code == 200
    console.installation.run("token", "revoke", made["id"])
    assert code_of(api("GET", "/projects")) == (401, "invalid_token")
    assert code_of(api("PATCH", f"/projects/{project.id}", {"cache": False})) == (401, "invalid_token")
    [listed] = [row for row in console.installation.run_json("token", "list") if row["id"] == made["id"]]
    assert listed["revoked_at"]
    assert "token" not in listed


def test_tokens_are_for_the_api_and_keys_for_the_proxy(console: RunningConsole, project: Project) -> None:
    made = token(console)
    assert ask(console, made) == 401
    assert console.proxy.get("/v1/models", made).status == 401
    refused = Api(console, project.key)("GET", "/organization")
    assert code_of(refused) == (401, "invalid_token")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert code_of(Api(console, None)("GET", "/organization")) == (401, "missing_token")


def test_a_session_is_no_way_into_the_api(console: RunningConsole) -> None:
    with console.signed_in() as client:
        assert client.get("/api/organization").status_code == 401
        assert client.post("/api/projects", json={"name": "forged"}).status_code == 401


def test_wrong_tokens_are_bounded_and_right_ones_go_on(console: RunningConsole, api: Api) -> None:
    assert api("GET", "/plans").status_code == 200
    # From another address of this host: the other tests' tokens come from the first.
    with httpx.Client(
        base_url=f"{console.url}/api",
        transport=httpx.HTTPTransport(local_address="127.0.0.2"),
        timeout=20,
        trust_env=False,
    ) as client:
        headers = [{"Authorization": f"Bearer {tokens.generate()}"} for _ in range(MAX_FAILURES + 1)]
        answers = [client.get("/plans", headers=each) for each in headers]
        assert [answer.status_code for answer in answers] == [401] * MAX_FAILURES + [429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 301
        assert code_of(answers[-1]) == (429, "too_many_attempts")
    assert api("GET", "/plans").status_code == 200


def test_the_audit_log_names_the_token(console: RunningConsole, project: Project) -> None:
    made = console.installation.run_json("token", "create", "--name", "deploy")
    Api(console, made["token"])("PATCH", f"/projects/{project.id}", {"budget_usd_day": 2})
    [line] = [
        line
        for line in console.installation.run_json("audit", "list", "--project", project.id)
        if line["action"] == "project.set"
    ]
    assert line["actor"] == f"token:deploy {made['id']}"
    assert line["details"] == {"budget_usd_day": 2.0}


def test_changes_at_once_all_hold(api: Api, project: Project) -> None:
    names = [
        "requests_per_minute",
        "tokens_per_minute",
        "concurrent_requests",
        "monthly_requests",
        "upstream_per_minute",
    ]
    with ThreadPoolExecutor(5) as pool:
        changes = [pool.submit(api, "PATCH", f"/projects/{project.id}", {name: 70}) for name in names]
    assert [change.result().status_code for change in changes] == [200] * 5
    settings = api("GET", f"/projects/{project.id}").json()["settings"]
    assert [settings[name] for name in names] == [70] * 5


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "invalid_json"),
        (b"", JSON, 400, "invalid_json"),
        (b"[]", JSON, 400, "invalid_request"),
        (b'{"cache": "off", "cache": "on"}', JSON, 400, "invalid_json"),
        (b'{"cache": NaN}', JSON, 400, "invalid_json"),
        (b'{"cache": ' + b"[" * 1000 + b"]" * 1000 + b"}", JSON, 400, "invalid_json"),
        (b'{"cache": "' + b"x" * 70_000 + b'"}', JSON, 413, "request_too_large"),
        (b'{"cache": "off"}', {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"cache=off", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    ],
)
def test_hostile_bodies_are_refused(
    api: Api, project: Project, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    refused = api("PATCH", f"/projects/{project.id}", content=content, headers=headers)
    assert code_of(refused) == (status, code)


@pytest.mark.parametrize(
    "body",
    [{}, {"name": 1}, {"name": ""}, {"name": "x" * 201}, {"name": "x", "more": 1}],
)
def test_a_project_of_the_wrong_form_is_not_made(api: Api, body: dict[str, object]) -> None:
    before = api("GET", "/projects?limit=100").json()
    assert code_of(api("POST", "/projects", body)) == (400, "invalid_request")
    assert api("GET", "/projects?limit=100").json() == before


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["admin"]},
        {"scopes": []},
        {"scopes": "inference"},
        {"expires": "soon"},
        {"expires": "99999999d"},
        {"expires": "2020-01-01"},
    ],
)
def test_a_key_of_the_wrong_form_is_not_made(api: Api, project: Project, body: dict[str, object]) -> None:
    assert code_of(api("POST", f"/projects/{project.id}/keys", body)) == (400, "invalid_request")
    assert len(api("GET", f"/projects/{project.id}/keys").json()["data"]) == 1


def test_other_paths_and_methods_are_told_so(api: Api) -> None:
    assert code_of(api("GET", "/nothing")) == (404, "not_found")
    assert code_of(api("GET", "/projects/")) == (404, "not_found")
    refused = api("PUT", "/projects", {})
    assert code_of(refused) == (405, "method_not_allowed")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert refused.headers["x-content-type-options"] == "nosniff"
    assert refused.headers["cache-control"] == "no-store"
