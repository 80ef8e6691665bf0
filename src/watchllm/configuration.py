"""The configuration of a process: flags over environment over `WATCHLLM_HOME/watchllm.toml` over defaults.

Every setting has one row in `SETTINGS`: its name (the flag, the name in the file), its environment variable, how its
text is read and its default. `load` reads them once, at start; nothing inside ever looks at the environment again.
Import-light, because the proxy's cold start pays for it: no TOML parser, no path, URL or address module unless it is
needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from watchllm import setting_forms as forms

if TYPE_CHECKING:
    from pathlib import Path

    from watchllm.domain.paths import StrPath

FILE_NAME = "watchllm.toml"
FLAG, ENVIRONMENT, FILE, DEFAULT = "flag", "environment", "file", "default"
INSTANCE_PROVIDERS = ("openai", "anthropic", "groq", "openrouter")

_MIB = 1 << 20


class ConfigurationError(Exception):
    """A setting that cannot be used; the message names it, the form expected and what to do. Exit code 2."""


class InstanceProvider(msgspec.Struct, frozen=True):
    """A provider that the operator set for the whole instance. `base_url` may have any address."""

    api_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        key = "***" if self.api_key else None
        return f"InstanceProvider(api_key={key}, base_url={mask_url(self.base_url or '')!r})"


class Row(msgspec.Struct, frozen=True):
    """One line of `config show`; secrets are masked in `value`."""

    name: str
    variable: str
    value: Any
    origin: str


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a process is told at start. Sizes in bytes, time-outs in seconds; paths are absolute."""

    directory: str
    """The home folder; `home` for those who like a Path."""
    database_url: str
    database_direct_url: str | None = None
    database_replica_url: str | None = None
    usage_days: int | None = None
    redis_url: str | None = None
    redis_timeout: float = 0.05
    secret_key: str | None = None
    secret_key_previous: str | None = None
    host: str = "127.0.0.1"
    proxy_port: int = 8787
    console_port: int = 3000
    sim_port: int = 9090
    admin_addr: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    allow_private_urls: bool = False
    region: str = "local"
    max_body_bytes: int = 32 * _MIB
    max_inflight_bytes: int = 256 * _MIB
    max_header_bytes: int = 64 * 1024
    max_connections: int = 10_000
    max_upstream: int = 1024
    max_queued: int = 2048
    queue_timeout: float = 30.0
    limits_on_outage: str = "local-share"
    cache_max_bytes: int = 1024 * _MIB
    cache_memory_bytes: int = 64 * _MIB
    embedder: str = "static"
    embedder_api_key: str | None = None
    embedder_dimensions: int | None = None
    embedder_timeout: float = 0.15
    cross_encoder: str | None = None
    cross_encoder_calibration: tuple[float, float] | None = None
    """Slope and intercept; None = its numbers are taken as they come."""
    cross_encoder_timeout: float = 0.1
    semantic_max_bytes: int = 512 * _MIB
    semantic_max_per_project: int = 100_000
    semantic_max_per_key: int = 50_000
    semantic_max_in_memory: int = 100_000
    journal_max_bytes: int = 1024 * _MIB
    journal_full: str = "refuse"
    header_timeout: float = 10.0
    idle_timeout: float = 75.0
    upstream_connect_timeout: float = 10.0
    upstream_first_byte_timeout: float = 120.0
    upstream_idle_timeout: float = 60.0
    upstream_total_timeout: float = 600.0
    drain_seconds: float = 30.0
    instance_providers: dict[str, InstanceProvider] = {}
    """By provider name; only those with a key or a base URL are present."""
    proxy_env: dict[str, str] = {}
    """`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, where set (under these names, also when set in lower case)."""
    origins: dict[str, str] = {}
    """Where each setting came from: `flag`, `environment`, `file` or `default`."""

    def __repr__(self) -> str:
        # The values hold secrets, and a repr ends in tracebacks.
        return f"Configuration(home={self.directory!r})"

    @property
    def home(self) -> Path:
        """The folder of all embedded state."""
        from pathlib import Path

        return Path(self.directory)

    def describe(self) -> list[Row]:
        """Every setting with its value and where it came from, secrets masked."""
        return [
            Row(
                setting.name,
                setting.variable,
                setting.shown(self._value(setting)),
                self.origins.get(setting.name, DEFAULT),
            )
            for setting in SETTINGS
        ]

    def _value(self, setting: Setting) -> Any:
        if setting.provider:
            provider = self.instance_providers.get(setting.provider)
            return getattr(provider, setting.name.removeprefix(setting.provider + "_"), None)
        if setting.variable in _PROXY_VARIABLES:
            return self.proxy_env.get(setting.variable)
        return getattr(self, setting.name)


def load(flags: Mapping[str, str | int | None], env: Mapping[str, str], *, cwd: StrPath | None = None) -> Configuration:
    """Read the configuration. `flags` by setting name, None where a flag was not given; an empty variable is unset.

    Raises ConfigurationError for a value of the wrong form, an unknown flag or name in the file, a file that cannot be
    read, and settings that contradict each other.
    """
    unknown = flags.keys() - _BY_NAME.keys()
    if unknown:
        raise ConfigurationError(f"unknown flags: {', '.join(sorted(unknown))}")
    home_text = flags.get("home") or env.get("WATCHLLM_HOME") or ".watchllm"
    home = os.path.abspath(os.path.join(cwd or os.getcwd(), os.path.expanduser(str(home_text))))
    file = _read_file(os.path.join(home, FILE_NAME))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        text, origin, where = _find(setting, flags, env, file, home)
        origins[setting.name] = origin
        if text is not None:
            values[setting.name] = _parse(setting, text, where)
    values["directory"] = home
    values.pop("home", None)
    values.setdefault("database_url", home_database_url(home))
    _check_together(values)
    return _build(values, origins)


def home_database_url(home: str) -> str:
    """The database of a home folder, which is used unless another one is configured."""
    return f"sqlite:///{home}/watchllm.db"


def mask(secret: str) -> str:
    """What may be shown of a secret: its last four characters when it is long enough not to be guessed from them."""
    return "***" + (secret[-4:] if len(secret) >= 16 else "")


_OPEN_OPTIONS = frozenset(
    ("sslmode", "sslrootcert", "ssl_ca_certs", "channel_binding", "target_session_attrs", "connect_timeout")
)


def mask_url(url: str) -> str:
    """A URL whose password, or lone user part, and whose query values are replaced by `***`; not those of
    options that are known to be no secret."""
    head, separator, rest = url.partition("://")
    if not separator:
        head, rest = "", url
    # From the last `@`: a password may hold `/` and `?` unescaped, and too much hidden is better than too little.
    credentials, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        credentials = f"{user}:***" if colon else "***"
    path, question, query = place.partition("?")
    query = "&".join(map(_mask_option, query.split("&"))) if question else ""
    return head + separator + credentials + at + path + question + query


def _mask_option(text: str) -> str:
    name, _, value = text.partition("=")
    return f"{name}={value}" if name in _OPEN_OPTIONS else f"{name}=***"


class Setting(msgspec.Struct, frozen=True):
    """How one setting is named, read and shown. `provider` is set on `NAME_api_key` and `NAME_base_url`."""

    name: str
    variable: str
    parse: Callable[[str], Any]
    mask: Callable[[str], str] | None = None
    provider: str = ""
    in_file: bool = True

    def shown(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, tuple):
            return list(value)
        return self.mask(str(value)) if self.mask else str(value)


_POSTGRES = ("postgresql", "postgres")
_REDIS_SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")

SETTINGS: tuple[Setting, ...] = (
    Setting("home", "WATCHLLM_HOME", forms.plain, in_file=False),
    Setting("database_url", "WATCHLLM_DATABASE_URL", forms.url("sqlite", *_POSTGRES), mask_url),
    Setting("database_direct_url", "WATCHLLM_DATABASE_DIRECT_URL", forms.url(*_POSTGRES), mask_url),
    Setting("database_replica_url", "WATCHLLM_DATABASE_REPLICA_URL", forms.url(*_POSTGRES), mask_url),
    Setting("usage_days", "WATCHLLM_USAGE_DAYS", forms.count),
    Setting("redis_url", "WATCHLLM_REDIS_URL", forms.url(*_REDIS_SCHEMES), mask_url),
    Setting("redis_timeout", "WATCHLLM_REDIS_TIMEOUT", forms.moments),
    Setting("secret_key", "WATCHLLM_SECRET_KEY", forms.secret_key, mask),
    Setting("secret_key_previous", "WATCHLLM_SECRET_KEY_PREVIOUS", forms.secret_key, mask),
    Setting("host", "WATCHLLM_HOST", forms.plain),
    Setting("proxy_port", "WATCHLLM_PROXY_PORT", forms.port),
    Setting("console_port", "WATCHLLM_CONSOLE_PORT", forms.port),
    Setting("sim_port", "WATCHLLM_SIM_PORT", forms.port),
    Setting("admin_addr", "WATCHLLM_ADMIN_ADDR", forms.listen_address),
    Setting("tls_cert", "WATCHLLM_TLS_CERT", forms.path),
    Setting("tls_key", "WATCHLLM_TLS_KEY", forms.path),
    Setting("public_url", "WATCHLLM_PUBLIC_URL", forms.base_url, mask_url),
    Setting("trusted_proxies", "WATCHLLM_TRUSTED_PROXIES", forms.networks),
    Setting("allow_private_urls", "WATCHLLM_ALLOW_PRIVATE_URLS", forms.flag),
    Setting("region", "WATCHLLM_REGION", forms.region),
    Setting("max_body_bytes", "WATCHLLM_MAX_BODY_BYTES", forms.size),
    Setting("max_inflight_bytes", "WATCHLLM_MAX_INFLIGHT_BYTES", forms.size),
    Setting("max_header_bytes", "WATCHLLM_MAX_HEADER_BYTES", forms.size),
    Setting("max_connections", "WATCHLLM_MAX_CONNECTIONS", forms.count),
    Setting("max_upstream", "WATCHLLM_MAX_UPSTREAM", forms.count),
    Setting("max_queued", "WATCHLLM_MAX_QUEUED", forms.count),
    Setting("queue_timeout", "WATCHLLM_QUEUE_TIMEOUT", forms.seconds),
    Setting("limits_on_outage", "WATCHLLM_LIMITS_ON_OUTAGE", forms.one_of("local-share", "open", "closed")),
    Setting("cache_max_bytes", "WATCHLLM_CACHE_MAX_BYTES", forms.size_from_mib),
    Setting("cache_memory_bytes", "WATCHLLM_CACHE_MEMORY_BYTES", forms.size),
    Setting("embedder", "WATCHLLM_EMBEDDER", forms.embedder, mask_url),
    Setting("embedder_api_key", "WATCHLLM_EMBEDDER_API_KEY", forms.plain, mask),
    Setting("embedder_dimensions", "WATCHLLM_EMBEDDER_DIMENSIONS", forms.count),
    Setting("embedder_timeout", "WATCHLLM_EMBEDDER_TIMEOUT", forms.seconds),
    Setting("cross_encoder", "WATCHLLM_CROSS_ENCODER", forms.plain),
    Setting("cross_encoder_calibration", "WATCHLLM_CROSS_ENCODER_CALIBRATION", forms.calibration),
    Setting("cross_encoder_timeout", "WATCHLLM_CROSS_ENCODER_TIMEOUT", forms.seconds),
    Setting("semantic_max_bytes", "WATCHLLM_SEMANTIC_MAX_BYTES", forms.size),
    Setting("semantic_max_per_project", "WATCHLLM_SEMANTIC_MAX_PER_PROJECT", forms.count),
    Setting("semantic_max_per_key", "WATCHLLM_SEMANTIC_MAX_PER_KEY", forms.count),
    Setting("semantic_max_in_memory", "WATCHLLM_SEMANTIC_MAX_IN_MEMORY", forms.count),
    Setting("journal_max_bytes", "WATCHLLM_JOURNAL_MAX_BYTES", forms.size),
    Setting("journal_full", "WATCHLLM_JOURNAL_FULL", forms.one_of("refuse", "serve-unmetered")),
    Setting("header_timeout", "WATCHLLM_HEADER_TIMEOUT", forms.seconds),
    Setting("idle_timeout", "WATCHLLM_IDLE_TIMEOUT", forms.seconds),
    Setting("upstream_connect_timeout", "WATCHLLM_UPSTREAM_CONNECT_TIMEOUT", forms.seconds),
    Setting("upstream_first_byte_timeout", "WATCHLLM_UPSTREAM_FIRST_BYTE_TIMEOUT", forms.seconds),
    Setting("upstream_idle_timeout", "WATCHLLM_UPSTREAM_IDLE_TIMEOUT", forms.seconds),
    Setting("upstream_total_timeout", "WATCHLLM_UPSTREAM_TOTAL_TIMEOUT", forms.seconds),
    Setting("drain_seconds", "WATCHLLM_DRAIN_SECONDS", forms.seconds),
    *(
        setting
        for name in INSTANCE_PROVIDERS
        for setting in (
            Setting(f"{name}_api_key", f"{name.upper()}_API_KEY", forms.plain, mask, provider=name),
            Setting(f"{name}_base_url", f"{name.upper()}_BASE_URL", forms.base_url, mask_url, provider=name),
        )
    ),
    *(Setting(name.lower(), name, forms.plain, mask_url if name != "NO_PROXY" else None) for name in _PROXY_VARIABLES),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    import tomllib

    try:
        values = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    known = sorted(setting.name for setting in SETTINGS if setting.in_file)
    for name in values:
        if name not in known:
            raise ConfigurationError(f"{path}: unknown setting {name!r}; known settings: {', '.join(known)}")
    return values


def _find(
    setting: Setting, flags: Mapping[str, str | int | None], env: Mapping[str, str], file: dict[str, Any], home: str
) -> tuple[str | None, str, str]:
    """The text of a setting, its origin, and how an error names the place."""
    given = flags.get(setting.name)
    if given is not None:
        return str(given), FLAG, "--" + setting.name.replace("_", "-")
    names = [setting.variable]
    if setting.variable in _PROXY_VARIABLES:
        # As curl and the SDKs do it: the lower-case name counts too, and first.
        names.insert(0, setting.variable.lower())
    for name in names:
        if text := env.get(name, ""):
            return text, ENVIRONMENT, name
    value = file.get(setting.name)
    if value is None or value == "":
        return None, DEFAULT, ""
    where = f"{setting.name} in {os.path.join(home, FILE_NAME)}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value), FILE, where
    if not isinstance(value, (str, int, float)):
        raise ConfigurationError(f"{where}: expected a string, a number or true/false")
    return str(value).lower() if isinstance(value, bool) else str(value), FILE, where


def _parse(setting: Setting, text: str, where: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        # Secrets and URLs are not repeated: messages end up in logs.
        given = "" if setting.mask else f" {text!r}"
        raise ConfigurationError(f"{where}:{given} is not valid; expected {error}") from None


def _check_together(values: Mapping[str, Any]) -> None:
    if ("tls_cert" in values) != ("tls_key" in values):
        raise ConfigurationError("WATCHLLM_TLS_CERT and WATCHLLM_TLS_KEY belong together: set both or neither")
    is_postgres = values["database_url"].partition("://")[0] in _POSTGRES
    for name in ("database_direct_url", "database_replica_url"):
        if name in values and not is_postgres:
            raise ConfigurationError(f"WATCHLLM_{name.upper()} belongs to a WATCHLLM_DATABASE_URL of PostgreSQL")
    if is_postgres and "secret_key" not in values:
        file = os.path.join(values["directory"], "secret.key")
        advice = (
            f"this home has one, which everything in its own database is sealed under: set what {file} holds"
            if os.path.exists(file)
            else "`openssl rand -base64 32` makes one"
        )
        raise ConfigurationError(f"WATCHLLM_SECRET_KEY is required with PostgreSQL, the same on every host; {advice}")
    if values.get("max_inflight_bytes", 1 << 62) < values.get("max_body_bytes", 0):
        raise ConfigurationError("WATCHLLM_MAX_INFLIGHT_BYTES must not be less than WATCHLLM_MAX_BODY_BYTES")


def _build(values: dict[str, Any], origins: dict[str, str]) -> Configuration:
    providers = {}
    for name in INSTANCE_PROVIDERS:
        api_key, base_url = values.pop(f"{name}_api_key", None), values.pop(f"{name}_base_url", None)
        if name == "anthropic" and base_url:
            base_url = forms.messages_base_url(base_url)
        if api_key or base_url:
            providers[name] = InstanceProvider(api_key, base_url)
    proxies = {name: values.pop(name.lower()) for name in _PROXY_VARIABLES if name.lower() in values}
    return Configuration(**values, instance_providers=providers, proxy_env=proxies, origins=origins)
