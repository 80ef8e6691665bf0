"""Flags win over environment, environment over watchllm.toml, that over defaults; bad values say what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from watchllm.configuration import SETTINGS, Configuration, ConfigurationError, load, mask_url


def shown(configuration: Configuration, name: str) -> object:
    return next(row.value for row in configuration.describe() if row.name == name)


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    configuration = load({}, {}, cwd=tmp_path)
    assert configuration.home == tmp_path / ".watchllm"
    assert configuration.database_url == f"sqlite:///{tmp_path}/.watchllm/watchllm.db"
    assert (configuration.host, configuration.proxy_port, configuration.console_port) == ("127.0.0.1", 8787, 3000)
    assert configuration.max_body_bytes == 32 * 1024 * 1024
    assert configuration.instance_providers == {}
    assert configuration.origins["proxy_port"] == "default"


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "watchllm.toml").write_text(
        "proxy_port = 1\nconsole_port = 2\nsim_port = 3\nallow_private_urls = true\n"
    )
    env = {"WATCHLLM_HOME": str(tmp_path), "WATCHLLM_PROXY_PORT": "11", "WATCHLLM_CONSOLE_PORT": "12"}
    configuration = load({"proxy_port": 21, "console_port": None}, env)
    assert (configuration.proxy_port, configuration.console_port, configuration.sim_port) == (21, 12, 3)
    assert configuration.allow_private_urls is True
    origins = [configuration.origins[name] for name in ("proxy_port", "console_port", "sim_port", "host")]
    assert origins == ["flag", "environment", "file", "default"]


def test_an_empty_variable_is_unset(tmp_path: Path) -> None:
    configuration = load({}, {"WATCHLLM_HOME": str(tmp_path), "WATCHLLM_PROXY_PORT": "", "OPENAI_API_KEY": ""})
    assert configuration.proxy_port == 8787
    assert configuration.instance_providers == {}


def test_instance_providers_and_outbound_proxies(tmp_path: Path) -> None:
    env = {
        "OPENAI_API_KEY": "sk-something-long-enough",
        "GROQ_BASE_URL": "http://127.0.0.1:9/openai/",
        "https_proxy": "http://lower:1",
        "HTTPS_PROXY": "http://upper:1",
        "NO_PROXY": "localhost",
    }
    configuration = load({}, env, cwd=tmp_path)
    assert set(configuration.instance_providers) == {"openai", "groq"}
    assert configuration.instance_providers["openai"].api_key == "sk-something-long-enough"
    assert configuration.instance_providers["groq"].base_url == "http://127.0.0.1:9/openai"
    assert configuration.proxy_env == {"HTTPS_PROXY": "http://lower:1", "NO_PROXY": "localhost"}


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://api.example.com", "https://api.example.com/v1"),
        ("https://api.example.com/", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com/anthropic/v1", "https://api.example.com/anthropic/v1"),
    ],
)
def test_a_bare_host_is_a_base_url_of_anthropics(tmp_path: Path, given: str, used: str) -> None:
    """As its own clients have it, which read the same variable."""
    configuration = load({}, {"ANTHROPIC_BASE_URL": given}, cwd=tmp_path)
    assert configuration.instance_providers["anthropic"].base_url == used


def test_no_secret_is_shown(tmp_path: Path) -> None:
    secrets = {
        "WATCHLLM_SECRET_KEY": "master-secret-0123456789abcdefghij",
        "OPENAI_API_KEY": "sk-0123456789abcdef",
        "WATCHLLM_DATABASE_URL": "postgresql://user:pass-word@db.example/x?password=query-word",
        "WATCHLLM_REDIS_URL": "rediss://default:red-word@cache.example:6379",
        "HTTPS_PROXY": "http://me:proxy-word@proxy.example:3128",
        "OPENAI_BASE_URL": "https://lone-token@gateway.example/v1",
    }
    configuration = load({}, secrets, cwd=tmp_path)
    printed = repr(configuration.describe()) + repr(configuration) + repr(configuration.instance_providers)
    for word in ("master-secret", "sk-0123", "pass-word", "query-word", "red-word", "proxy-word", "lone-token"):
        assert word not in printed
    assert shown(configuration, "database_url") == "postgresql://user:***@db.example/x?password=***"
    assert shown(configuration, "openai_api_key") == "***cdef"


@pytest.mark.parametrize(
    ("variable", "value", "form"),
    [
        ("WATCHLLM_PROXY_PORT", "99999", "port"),
        ("WATCHLLM_PROXY_PORT", "http", "port"),
        ("WATCHLLM_MAX_BODY_BYTES", "32 apples", "size"),
        ("WATCHLLM_MAX_BODY_BYTES", "-1", "size"),
        ("WATCHLLM_ALLOW_PRIVATE_URLS", "maybe", "true or false"),
        ("WATCHLLM_UPSTREAM_TOTAL_TIMEOUT", "nan", "seconds"),
        ("WATCHLLM_DATABASE_URL", "mysql://x", "sqlite://"),
        ("WATCHLLM_SECRET_KEY", "short", "32 characters"),
        ("WATCHLLM_TRUSTED_PROXIES", "10.0.0.1/8", "networks"),
        ("OPENAI_BASE_URL", "api.openai.com", "https://"),
        ("WATCHLLM_ADMIN_ADDR", "9464", "HOST:PORT"),
        ("WATCHLLM_TLS_CERT", "cert.pem", "WATCHLLM_TLS_KEY"),
        ("WATCHLLM_CACHE_MAX_BYTES", "200KiB", "at least 1MiB"),
        ("WATCHLLM_CACHE_MAX_BYTES", "999999999GiB", "at most 16384GiB"),
        ("WATCHLLM_JOURNAL_MAX_BYTES", "9" * 5000, "at most 16384GiB"),
        ("WATCHLLM_MAX_CONNECTIONS", "9" * 5000, "1 to 1000000000"),
        ("WATCHLLM_PROXY_PORT", "9" * 5000, "port"),
        ("WATCHLLM_SEMANTIC_MAX_PER_KEY", "\u0663", "whole number"),
        ("WATCHLLM_EMBEDDER", "openai:nomic@127.0.0.1:18507/v1", "http:// or https:// after the @"),
        ("WATCHLLM_EMBEDDER", "openai:nomic@ftp://127.0.0.1/v1", "http:// or https:// after the @"),
        ("WATCHLLM_EMBEDDER", "openai:nomic@httpx://127.0.0.1/v1", "http:// or https:// after the @"),
        ("WATCHLLM_EMBEDDER", "openai:nomic@http://", "http:// or https:// after the @"),
        ("WATCHLLM_EMBEDDER", "openai:nomic@", "http:// or https:// after the @"),
        ("WATCHLLM_EMBEDDER", "openai:@http://127.0.0.1/v1", "openai:MODEL@BASE_URL"),
        ("WATCHLLM_EMBEDDER", "openai:http://127.0.0.1:18507/v1", "openai:MODEL@BASE_URL"),
        ("WATCHLLM_EMBEDDER", "openai:nomic http://127.0.0.1:18507/v1", "openai:MODEL@BASE_URL"),
        ("WATCHLLM_EMBEDDER", "word2vec", "static, openai:MODEL"),
    ],
)
def test_a_bad_value_names_the_variable_and_the_form(tmp_path: Path, variable: str, value: str, form: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, {"WATCHLLM_HOME": str(tmp_path), variable: value})
    assert variable in str(caught.value)
    assert form in str(caught.value)


@pytest.mark.parametrize(
    "embedder",
    [
        "static",
        "openai:text-embedding-3-small",
        "openai:nomic-embed-text:v1.5@http://127.0.0.1:11434/v1",
        "openai:m@https://user:pass@models.example/v1",
        "fastembed:BAAI/bge-small-en-v1.5",
        "fastembed:/srv/models@2024/bge",
    ],
)
def test_an_embedder_is_read_as_it_is_written(tmp_path: Path, embedder: str) -> None:
    assert load({}, {"WATCHLLM_EMBEDDER": embedder}, cwd=tmp_path).embedder == embedder


def test_a_bad_secret_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, {"WATCHLLM_HOME": str(tmp_path), "WATCHLLM_SECRET_KEY": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_an_unknown_name_in_the_file_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "watchllm.toml").write_text("proxy-port = 1\n")
    with pytest.raises(ConfigurationError, match=r"unknown setting 'proxy-port'.*proxy_port"):
        load({}, {"WATCHLLM_HOME": str(tmp_path)})


@pytest.mark.parametrize("content", ["proxy_port = ", "[host]\nx = 1\n"])
def test_a_file_that_cannot_be_understood_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "watchllm.toml").write_text(content)
    with pytest.raises(ConfigurationError, match=r"watchllm\.toml"):
        load({}, {"WATCHLLM_HOME": str(tmp_path)})


def test_postgresql_needs_a_secret_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="WATCHLLM_SECRET_KEY is required"):
        load({}, {"WATCHLLM_DATABASE_URL": "postgresql://u:p@h/d"}, cwd=tmp_path)


def test_sizes_can_be_written_with_units(tmp_path: Path) -> None:
    configuration = load({"cache_max_bytes": "2GiB", "max_body_bytes": "8 MB"}, {}, cwd=tmp_path)
    assert (configuration.cache_max_bytes, configuration.max_body_bytes) == (2 << 30, 8_000_000)


def test_every_field_has_a_row_and_every_row_a_value(tmp_path: Path) -> None:
    fields = set(Configuration.__struct_fields__) - {"instance_providers", "proxy_env", "origins"}
    fields = fields - {"directory"} | {"home"}
    rows = {setting.name for setting in SETTINGS if not setting.provider and not setting.name.endswith("_proxy")}
    assert rows == fields
    assert len(load({}, {}, cwd=tmp_path).describe()) == len(SETTINGS)


def test_mask_url_hides_credentials_and_nothing_else() -> None:
    assert mask_url("https://api.example/v1") == "https://api.example/v1"
    assert mask_url("https://host.example?token=abc") == "https://host.example?token=***"
    masked = mask_url("postgresql://u:pw@db.example/x?sslmode=require&sslpassword=abc")
    assert masked == "postgresql://u:***@db.example/x?sslmode=require&sslpassword=***"
    assert "word" not in mask_url("redis://u:pass?/word@cache.example:6379")
    assert mask_url("sqlite:////data/watchllm.db") == "sqlite:////data/watchllm.db"


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from watchllm.configuration import load; load({}, {});"
        "print([m for m in ('tomllib', 'sqlalchemy', 'pydantic', 'asyncio') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    assert output.strip() == "[]"


def test_every_setting_is_documented_with_its_variable() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [(row[0].strip("| `"), row[1].strip("`")) for row in rows] == [
        (setting.name, setting.variable) for setting in SETTINGS
    ]
