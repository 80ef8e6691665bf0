"""The command line as a script uses it: JSON on stdout and nothing else there, exit codes, secrets from stdin only."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.product import Installation
from watchllm import __version__
from watchllm.domain.keys import digest, is_well_formed
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader


@pytest.fixture
def reader(installation: Installation) -> Iterator[LmdbSnapshotReader]:
    """Opened before anything was published, as a proxy may be."""
    reader = LmdbSnapshotReader(installation.home / "snapshot")
    yield reader
    reader.close()


def test_from_a_project_to_a_revoked_key(installation: Installation, reader: LmdbSnapshotReader) -> None:
    project = installation.run_json("project", "create", "Mine")
    assert project["name"] == "Mine"
    installation.run("project", "set", project["id"], "cache=off", "allowed_models=gpt-*,sim/*")
    shown = installation.run_json("project", "show", project["id"])
    assert shown["settings"]["cache"] is False
    assert shown["settings"]["allowed_models"] == ["gpt-*", "sim/*"]
    made = installation.run_json("key", "create", "--project", project["id"], "--scope", "inference,cache:write")
    assert is_well_formed(made["key"])
    assert made["key"].startswith(made["prefix"].rstrip("…"))
    assert made["scopes"] == ["inference", "cache:write"]
    assert reader.key(digest(made["key"])) is not None
    installation.run("key", "revoke", made["id"])
    assert reader.key(digest(made["key"])) is None
    [listed] = installation.run_json("key", "list")
    assert (listed["id"], listed["revoked_at"] is not None) == (made["id"], True)
    assert "key" not in listed
    assert [entry["id"] for entry in installation.run_json("project", "list")] == [project["id"]]


def test_a_test_key_and_an_expiry(installation: Installation, reader: LmdbSnapshotReader) -> None:
    project = installation.run_json("project", "create", "Mine")["id"]
    key = installation.run("key", "create", "--project", project, "--test", "--expires", "2100-01-01").stdout.strip()
    assert key.startswith("lgw_test_")
    record = reader.key(digest(key))
    assert record is not None
    assert record.expires_at == 4_102_444_800
    assert record.test


def test_a_key_is_made_with_limits_and_changed_afterwards(
    installation: Installation, reader: LmdbSnapshotReader
) -> None:
    project = installation.run("project", "create", "Mine").stdout.strip()
    made = installation.run_json(
        "key", "create", "--project", project, "requests_per_minute=10", "allowed_models=gpt-4o*,claude-*"
    )
    assert made["limits"]["requests_per_minute"] == 10
    record = reader.key(digest(made["key"]))
    assert record is not None
    assert record.limits is not None
    assert record.limits.allowed_models == ("gpt-4o*", "claude-*")
    changed = installation.run_json("key", "set", made["id"], "name=ci", "expires=2100-01-01")
    assert (changed["name"], changed["expires_at"]) == ("ci", "2100-01-01T00:00:00Z")
    refused = installation.run("key", "create", "--project", project, "requests_per_minute=many", check=False)
    assert refused.returncode == 2
    assert "expected a whole number" in " ".join(refused.stderr.replace("│", " ").split())
    assert len(installation.run_json("key", "list")) == 1


def test_the_list_of_provider_keys_says_what_a_provider_of_ones_own_speaks(installation: Installation) -> None:
    project = installation.run_json("project", "create", "Mine")["id"]
    for provider, *options in (("openai",), ("mine",), ("theirs", "--dialect", "messages")):
        url = "http://127.0.0.1:11434/v1"
        installation.run("provider-key", "add", provider, "--project", project, "--base-url", url, *options, stdin="-x")
    head, *lines = installation.run("provider-key", "list").stdout.splitlines()
    assert "dialect" in head.lower()
    spoken = {line.split()[1]: {"chat", "messages"}.intersection(line.split()) for line in lines if "pvk_" in line}
    assert spoken == {"openai": set(), "mine": {"chat"}, "theirs": {"messages"}}


def test_a_provider_key_comes_from_stdin_or_a_variable_and_is_never_shown(installation: Installation) -> None:
    project = installation.run_json("project", "create", "Mine")["id"]
    first = installation.run_json("provider-key", "add", "openai", "--project", project, stdin="sk-piped-0123456789\n")
    installation.environment["MY_SECRET"] = "sk-from-variable-4321"
    url = "http://127.0.0.1:11434/v1"
    installation.run(
        "provider-key", "add", "ollama", "--project", project, "--base-url", url, "--from-env", "MY_SECRET",
        "--priority", "3",
    )  # fmt: skip
    printed = (
        installation.run("provider-key", "list").stdout + installation.run("provider-key", "list", "--json").stdout
    )
    assert "***6789" in printed
    assert "***4321" in printed
    assert "piped" not in printed
    assert "variable" not in printed
    assert first["provider"] == "openai"
    installation.run("provider-key", "remove", first["id"])
    [left] = installation.run_json("provider-key", "list", "--project", project)
    assert (left["provider"], left["base_url"], left["priority"]) == ("ollama", url, 3)
    everything = b"".join(file.read_bytes() for file in installation.home.rglob("*") if file.is_file())
    assert b"sk-piped" not in everything
    assert b"sk-from-variable" not in everything


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["key", "create", "--project", "prj_unknown"], 1, "no project has the id 'prj_unknown'"),
        (["project", "show", "prj_unknown", "--json"], 1, "no project has the id"),
        (["logs", "tail", "--project", "prj_unknown"], 1, "no project has the id"),
        (["usage", "export", "--format", "csv", "--project", "prj_unknown"], 1, "no project has the id"),
        (["usage", "export", "--format", "csv", "--until", "garbage"], 2, "--until"),
        (["key", "revoke", "key_unknown"], 1, "no key has the id"),
        (["provider-key", "remove", "pvk_unknown"], 1, "no provider key has the id"),
        (["key", "create"], 2, "--project"),
        (["key", "create", "--project", "p", "--expires", "soon"], 2, "--expires"),
        (["project", "set", "prj_unknown", "cache"], 2, "KEY=VALUE"),
        (["project", "set", "prj_unknown", "cache=off", "cache=on"], 2, "given twice"),
        (["project", "set", "prj_unknown", "cache=maybe"], 2, "expected on or off"),
        (["project", "set", "prj_unknown", "colour=red"], 2, "unknown setting"),
        (["provider-key", "add", "openai", "--project", "p", "--from-env", "UNSET"], 2, "UNSET"),
        (["provider-key", "add", "openai", "--project", "p"], 2, "stdin"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_what_fails_says_so_on_stderr_and_prints_nothing(
    installation: Installation, arguments: list[str], code: int, said: str
) -> None:
    done = installation.run(*arguments, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


LITELLM = """
model_list:
  - {model_name: main, litellm_params: {model: openai/gpt-4o, api_key: os.environ/THE_KEY, rpm: 3}}
  - {model_name: main, litellm_params: {model: anthropic/claude-sonnet-4-5}}
general_settings: {master_key: sk-master-0123456789}
"""


def test_a_litellm_configuration_is_brought_over(installation: Installation, tmp_path: Path) -> None:
    project = installation.run_json("project", "create", "Mine")["id"]
    installation.environment["THE_KEY"] = "sk-by-reference-0123"
    file = tmp_path / "config.yaml"
    file.write_text(LITELLM)
    tried = installation.run_json("import", "litellm", str(file), "--dry-run")
    assert (tried["project_id"], tried["dry_run"]) == (project, True)
    assert installation.run_json("route", "list") == []
    done = installation.run_json("import", "litellm", str(file), "--project", project)
    assert [{**key, "id": ""} for key in done["provider_keys"]] == [{**key, "id": ""} for key in tried["provider_keys"]]
    [route] = installation.run_json("route", "list")
    # What the file gives no share of is used when the others fail, as there.
    assert (route["name"], route["to"]) == ("main", [{"model": "openai/gpt-4o", "weight": 1}])
    assert route["fallbacks"] == ["anthropic/claude-sonnet-4-5"]
    [key] = installation.run_json("provider-key", "list")
    assert (key["provider"], key["masked"]) == ("openai", "***0123")
    assert [entry["variable"] for entry in done["keys_to_add"]] == ["ANTHROPIC_API_KEY"]
    assert {entry["path"] for entry in done["not_imported"]} == {
        "model_list[0].litellm_params.rpm", "general_settings.master_key",
    }  # fmt: skip
    shown = installation.run("import", "litellm", str(file)).stdout
    assert "general_settings.master_key" in shown
    for secret in ("sk-by-reference", "sk-master"):
        assert secret not in shown + json.dumps(done)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model_list: [", "not YAML: line"),
        (b"model_list: 1", "model_list: a list belongs here"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"a: !!python/object/apply:os.system [ls]", "is for more than plain data"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_bad_configuration_of_litellm_changes_nothing(
    installation: Installation, tmp_path: Path, content: bytes | None, message: str
) -> None:
    installation.run("project", "create", "Mine")
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_bytes(content)
    done = installation.run("import", "litellm", str(file), "--json", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert installation.run_json("provider-key", "list") == []


def test_config_show_names_origins_and_masks_secrets(installation: Installation) -> None:
    installation.environment |= {"OPENAI_API_KEY": "sk-very-secret-indeed-1234", "WATCHLLM_PROXY_PORT": "8001"}
    installation.home.mkdir(parents=True, exist_ok=True)
    (installation.home / "watchllm.toml").write_text("console_port = 3001\n")
    rows = {row["name"]: row for row in installation.run_json("config", "show")}
    assert (rows["proxy_port"]["value"], rows["proxy_port"]["origin"]) == (8001, "environment")
    assert (rows["console_port"]["value"], rows["console_port"]["origin"]) == (3001, "file")
    assert (rows["sim_port"]["value"], rows["sim_port"]["origin"]) == (9090, "default")
    assert rows["openai_api_key"]["value"] == "***1234"
    assert "very-secret" not in installation.run("config", "show").stdout
    assert (rows["secret_key"]["value"], rows["secret_key"]["origin"]) == (None, "default")


def test_config_show_says_that_the_secret_is_the_home_s_own(installation: Installation) -> None:
    installation.run("project", "create", "Mine")
    file = installation.home / "secret.key"
    [row] = [row for row in installation.run_json("config", "show") if row["name"] == "secret_key"]
    assert (row["value"], row["origin"]) == ("***" + file.read_text().strip()[-4:], str(file))


def test_a_bad_setting_is_wrong_usage_that_names_it(installation: Installation) -> None:
    installation.environment["WATCHLLM_PROXY_PORT"] = "none"
    done = installation.run("config", "show", check=False)
    assert done.returncode == 2
    assert "WATCHLLM_PROXY_PORT" in done.stderr


def test_a_default_provider_that_nobody_knows_is_warned_of(installation: Installation) -> None:
    project = installation.run_json("project", "create", "Mine")["id"]
    assert "'zzz'" in installation.run("project", "set", project, "default_provider=zzz").stderr
    for known in ("sim", "openai"):
        assert installation.run("project", "set", project, f"default_provider={known}").stderr == ""
    url = "https://192.0.2.1/v1"
    installation.run("provider-key", "add", "zzz", "--project", project, "--base-url", url, stdin="sk-secret")
    assert installation.run("project", "set", project, "default_provider=zzz").stderr == ""


def test_an_allowed_provider_that_nobody_knows_is_warned_of(installation: Installation) -> None:
    project = installation.run_json("project", "create", "Mine")
    setting = "allowed_providers=openai,opnai,zzz"
    key = installation.run("key", "create", "--project", project["id"], "--json", setting)
    subjects = (
        ("project", project["id"]),
        ("organization", project["organization_id"]),
        ("key", json.loads(key.stdout)["id"]),
    )
    for done in (key, *(installation.run(noun, "set", subject, setting) for noun, subject in subjects)):
        assert "warning: allowed_providers: no provider 'opnai', 'zzz' is known (did you mean openai?)" in done.stderr
    url = "https://192.0.2.1/v1"
    for own in ("opnai", "zzz"):
        installation.run("provider-key", "add", own, "--project", project["id"], "--base-url", url, stdin="sk-secret")
    for noun, subject in subjects:
        assert installation.run(noun, "set", subject, setting).stderr == ""


def test_a_private_base_url_is_warned_of_unless_it_is_allowed(installation: Installation) -> None:
    project = installation.run_json("project", "create", "Mine")["id"]

    def add(url: str) -> str:
        arguments = ("provider-key", "add", "mine", "--project", project, "--base-url", url)
        return installation.run(*arguments, stdin="sk-secret").stderr

    assert "WATCHLLM_ALLOW_PRIVATE_URLS" in add("http://127.0.0.1:1/v1")
    assert add("https://1.1.1.1/v1") == ""
    installation.environment["WATCHLLM_ALLOW_PRIVATE_URLS"] = "true"
    assert add("http://127.0.0.1:1/v1") == ""


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "169.254.1.1", "2852039166", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]",
     "metadata.google.internal", "Metadata.Google.Internal.", "168.63.129.16"],
)  # fmt: skip
def test_a_metadata_service_is_refused_as_base_url_unless_it_is_allowed(installation: Installation, host: str) -> None:
    project = installation.project().id
    url = f"http://{host}/latest"
    arguments = ("provider-key", "add", "mine", "--project", project, "--base-url", url)
    done = installation.run(*arguments, stdin="sk-secret", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing was added" in done.stderr
    assert "WATCHLLM_ALLOW_PRIVATE_URLS" in done.stderr
    assert installation.run_json("provider-key", "list") == []
    installation.environment["WATCHLLM_ALLOW_PRIVATE_URLS"] = "true"
    assert installation.run(*arguments, stdin="sk-secret").stderr == ""


def test_a_base_url_that_does_not_resolve_is_warned_of(installation: Installation) -> None:
    arguments = ("--project", installation.project().id, "--base-url", "https://llm.provider.invalid/v1")
    done = installation.run("provider-key", "add", "mine", *arguments, stdin="sk-secret")
    assert "does not resolve" in done.stderr
    assert done.stdout.startswith("pvk_")


def test_another_master_secret_is_an_error_and_changes_nothing(installation: Installation) -> None:
    installation.run("project", "create", "Mine")
    installation.environment["WATCHLLM_SECRET_KEY"] = "another-secret-0123456789abcdefghij"
    done = installation.run("project", "list", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "WATCHLLM_SECRET_KEY" in done.stderr
    assert "another-secret" not in done.stderr


def test_db_upgrade_and_doctor(installation: Installation) -> None:
    assert installation.run_json("db", "upgrade")["upgraded"] is True
    assert installation.run_json("db", "upgrade")["upgraded"] is False
    with closing(LmdbSnapshotReader(installation.home / "snapshot")) as snapshot:
        assert snapshot.version() == 1
        assert snapshot.secret("cache_hash") is not None
    installation.environment |= {"WATCHLLM_PROXY_PORT": "0", "WATCHLLM_CONSOLE_PORT": "0"}
    installation.run("project", "create", "Mine")
    assert installation.run_json("doctor")["ok"] is True
    (installation.home / "secret.key").chmod(0o644)
    done = installation.run("doctor", "--json", check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (1, False)
    assert [found["name"] for found in report["checks"] if found["status"] == "failed"] == ["secret"]


def test_help_everywhere(installation: Installation) -> None:
    for noun in (
        [],
        ["project"],
        ["key"],
        ["provider-key"],
        ["config"],
        ["db"],
        ["doctor"],
        ["key", "create"],
        ["import"],
    ):
        assert "Usage" in installation.run(*noun, "--help").stdout


def test_help_begins_with_what_one_needs_first(installation: Installation) -> None:
    shown = installation.run("-h").stdout
    listed = [line.strip("│ ") for line in shown.partition("Commands")[2].splitlines()]
    begins = [next(at for at, line in enumerate(listed) if line.startswith(f"{noun} ")) for noun in ("up", "project")]
    assert begins == sorted(begins)
    assert begins[0] == 1, "nothing comes before `up`"
    assert "recorder" in " ".join(installation.run("up", "-h").stdout.replace("│", " ").split())


def test_the_version_is_told(installation: Installation) -> None:
    assert installation.run("--version").stdout == f"watchllm {__version__}\n"


def test_only_the_owner_can_read_the_home(installation: Installation) -> None:
    installation.environment["WATCHLLM_HOME"] = str(home := installation.home.parent / "fresh")
    installation.run("project", "create", "Mine")
    readable = [path for path in (home, *Path(home).rglob("*")) if path.stat().st_mode & 0o077]
    assert readable == []


def test_a_name_that_the_locale_has_no_characters_for_is_listed(installation: Installation) -> None:
    project = installation.project("日本 é")
    installation.environment["PYTHONIOENCODING"] = "latin-1:strict"
    (found,) = installation.run_json("project", "list")
    assert (found["id"], found["name"]) == (project.id, "日本 é")
    assert installation.run_json("key", "create", "--project", project.id)["prefix"].endswith("…")
    installation.environment["PYTHONIOENCODING"] = "iso8859-5:strict"
    assert "\\u65e5\\u672c \\xe9" in installation.run("project", "list").stdout
