"""Where Redis is, and as whom it is spoken to: what `WATCHLLM_REDIS_URL` says."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from watchllm.setting_forms import PERCENT_ENCODED

if TYPE_CHECKING:
    import ssl

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
_PORT = 6379
_CA_FILE = "ssl_ca_certs"


class Address(msgspec.Struct, frozen=True):
    """`redis[s][+cluster]://[user:password@]host:port[,host:port…][/database][?ssl_ca_certs=FILE]`.

    Several hosts are several ways into one cluster. A cluster is found out about without `+cluster`, too, by its first
    redirection.
    """

    seeds: tuple[tuple[str, int], ...]
    user: str | None = None
    password: str | None = None
    database: int = 0
    tls: bool = False
    cluster: bool = False
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    @property
    def shown(self) -> str:
        """Hosts and ports, and nothing else: for messages."""
        return ",".join(f"{host}:{port}" for host, port in self.seeds)

    def tls_context(self) -> ssl.SSLContext | None:
        """How the server's certificate is proved, None = unencrypted. Raises OSError where the file cannot be read."""
        if not self.tls:
            return None
        import ssl

        return ssl.create_default_context(cafile=self.ca_file)


def parse(url: str) -> Address:
    """Read the URL. Raises ValueError, whose message does not repeat it: it may hold a password."""
    parts = urlsplit(url)
    behind = (parts.path, parts.fragment, "" if "@" in parts.netloc else parts.query)
    if any("@" in part for part in behind):
        raise ValueError(f"a URL with no @ behind its host; {PERCENT_ENCODED}")
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a URL that begins with {', '.join(scheme + '://' for scheme in SCHEMES)}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise ValueError("a URL whose path is the number of a database")
    options = parse_qs(parts.query)
    if options.keys() - {_CA_FILE}:
        raise ValueError(f"a URL with no other option than {_CA_FILE}")
    cluster = parts.scheme.endswith("+cluster")
    seeds = tuple(_host(text) for text in hosts.split(","))
    if cluster and database.strip("0"):
        raise ValueError("a URL without a database: a cluster has one only")
    if len(seeds) > 1 and not cluster:
        raise ValueError("one host, or a URL that begins with redis+cluster:// or rediss+cluster://")
    ca_file = options.get(_CA_FILE, [None])[-1]
    if ca_file is not None:
        _check_ca_file(ca_file)
    return Address(
        seeds,
        unquote(user) or None,
        unquote(password) if colon else None,
        int(database or 0),
        parts.scheme.startswith("rediss"),
        cluster,
        ca_file,
    )


def _check_ca_file(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"a URL whose {_CA_FILE} is a file that can be read, not {path} ({reason})") from None


def _host(text: str) -> tuple[str, int]:
    host, bracket, rest = text.partition("]") if text.startswith("[") else (text, "", "")
    if bracket:
        host, port = host[1:], rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not host or (port and not port.isdecimal()) or not 0 < int(port or _PORT) < 65536:
        raise ValueError("a URL with a host and, after a colon, its port")
    return host, int(port or _PORT)
