"""Checks what this configuration depends on, changes nothing, and says what to do about what is wrong."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.compose.control import keyring_of, open_snapshot, publisher_for
from watchllm.compose.database import is_postgres, open_database
from watchllm.compose.doctor_budgets import examine_budgets
from watchllm.compose.doctor_cross_encoder import examine_cross_encoder
from watchllm.compose.doctor_embedder import examine_embedder
from watchllm.compose.doctor_postgres import examine_postgres
from watchllm.compose.doctor_providers import examine_providers
from watchllm.compose.doctor_running import examine_running
from watchllm.compose.errors import FAILURES
from watchllm.compose.installation import SNAPSHOT_FOLDER, check_no_other, has_database
from watchllm.configuration import Configuration, ConfigurationError
from watchllm.control import plans, prices, provider_keys, provider_names, schema, secrets, vendors
from watchllm.control.database import Database
from watchllm.control.database_errors import SAYS_MORE
from watchllm.control.errors import OtherInstallation, PlansUnusable, PricesUnusable
from watchllm.control.plans import Plan
from watchllm.domain.errors import Unavailable
from watchllm.domain.sealing import Keyring
from watchllm.stores import home
from watchllm.stores.lmdb.environment import StoreBroken

_START = "`watchllm up` makes it"
_START_PROXY = "`watchllm proxy` makes it"
_ON_ALL_HOSTS = "set WATCHLLM_SECRET_KEY to what all hosts have"


def examine(configuration: Configuration) -> Iterator[Check]:
    """One check after the other, each as soon as it is made."""
    only_serves = _only_serves(configuration)
    yield _home(configuration.home, _START_PROXY if only_serves else _START)
    yield from _configured(configuration)
    if not configuration.home.is_dir():
        return
    keyring, check = _secret(configuration, _ON_ALL_HOSTS if only_serves else _START)
    yield check
    if only_serves:
        detail = "this host has none, and serves what its installation publishes in Redis"
        advice = "commands are for the host that has it; to use them here, set its WATCHLLM_DATABASE_URL"
        yield Check("database", OK, detail, advice)
    elif not has_database(configuration):
        yield Check("database", WARNING, f"{_database_file(configuration)} does not exist yet", _START)
    else:
        yield from _stores(configuration, keyring)
    if not configuration.instance_providers:
        yield _no_provider()
    yield from examine_running(configuration)
    yield _port("proxy", configuration.host, configuration.proxy_port, "WATCHLLM_PROXY_PORT")
    yield _port("console", configuration.host, configuration.console_port, "WATCHLLM_CONSOLE_PORT")


def _only_serves(configuration: Configuration) -> bool:
    """Whether this is a host of proxies, whose installation has its database elsewhere."""
    try:
        check_no_other(configuration)
    except OtherInstallation:
        return True
    except (ConfigurationError, StoreBroken):
        pass  # What is wrong with Redis, or with the home, is told by the checks of these.
    return False


def _home(folder: Path, start: str) -> Check:
    if not folder.exists():
        return Check("home", WARNING, f"{folder} does not exist yet", start)
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("home", FAILED, f"{folder} is not a folder you may write to", "set WATCHLLM_HOME to one of yours")
    if not home.is_private(folder):
        return Check("home", WARNING, f"{folder} can be read by others", f"chmod 700 {folder}")
    return Check("home", OK, str(folder))


def _secret(configuration: Configuration, start: str) -> tuple[Keyring | None, Check]:
    file = configuration.home / home.SECRET_FILE
    if configuration.secret_key is None and not file.exists():
        return None, Check("secret", WARNING, f"{file} does not exist yet", start)
    try:
        keyring = keyring_of(configuration)
    except FAILURES as error:
        return None, Check("secret", FAILED, str(error), "restore it, or set WATCHLLM_SECRET_KEY")
    if configuration.secret_key is None and not home.is_private(file):
        return keyring, Check("secret", FAILED, f"{file} can be read by others", f"chmod 600 {file}")
    return keyring, Check("secret", OK, "WATCHLLM_SECRET_KEY" if configuration.secret_key else str(file))


def _database_file(configuration: Configuration) -> Path:
    return Path(configuration.database_url.removeprefix("sqlite:///"))


def _stores(configuration: Configuration, keyring: Keyring | None) -> Iterator[Check]:
    try:
        with closing(open_database(configuration)) as database:
            with database.reading() as connection:
                current = schema.version(connection)
            if current != schema.HEAD:
                advice = "`watchllm db upgrade`" if current is None or current < schema.HEAD else "use a newer WatchLLM"
                yield Check("database", FAILED, f"its schema is {current}, this program's {schema.HEAD}", advice)
                return
            yield Check("database", OK, f"schema {current}")
            if is_postgres(configuration.database_url):
                yield from examine_postgres(configuration, database)
            yield from _named_in_prices(configuration, database)
            yield from examine_budgets(database, _plans(configuration))
            if keyring is not None:
                check = _sealed(database, keyring)
                yield check
                if check.status != FAILED:
                    yield from _snapshot(configuration, database, keyring)
    except FAILURES as error:
        usual = "can it be reached?" if is_postgres(configuration.database_url) else "is the disk full or read-only?"
        advice = getattr(error, "advice", "") or usual
        detail = str(error).removesuffix(SAYS_MORE).removesuffix(f"; {advice}")
        yield Check("database", FAILED, detail, f"see WATCHLLM_DATABASE_URL; {advice}")


def _named_in_prices(configuration: Configuration, database: Database) -> Iterator[Check]:
    try:
        named = prices.named_by_operator(configuration.home)
    except PricesUnusable:
        return  # The check of the snapshot tells.
    with database.reading() as connection:
        known = {*vendors.names(), provider_keys.SIMULATED}
        known |= {key.provider for key in provider_keys.listed(connection)}
    if unknown := sorted(named - known):
        detail = f"{prices.FILE_NAME} has prices of providers that nobody knows: {provider_names.shown(unknown, known)}"
        yield Check("prices", WARNING, detail, "correct the name; prices of a provider of one's own wait for its key")


def _plans(configuration: Configuration) -> Mapping[str, Plan]:
    try:
        return plans.plans(configuration.home)
    except PlansUnusable:
        return {}  # The check of the snapshot tells.


def _sealed(database: Database, keyring: Keyring) -> Check:
    try:
        with database.reading() as connection:
            in_force = secrets.in_force(connection, keyring)
            # It has to open what all proxies share, too.
            secrets.shared(connection, keyring)
            sealed = [pair for pairs in provider_keys.sealed_by_project(connection).values() for pair in pairs]
        for key, secret in sealed:
            in_force.open(secret, key.id)
    except FAILURES as error:
        return Check("sealed secrets", FAILED, str(error), "set the WATCHLLM_SECRET_KEY that was used before")
    if in_force is not keyring.current:
        detail = "everything is sealed under the previous secret still: a rotation is not complete"
        return Check("sealed secrets", WARNING, detail, "`watchllm secret rotate` completes it")
    return Check("sealed secrets", OK, f"{len(sealed)} provider keys of projects, all of them open")


def _snapshot(configuration: Configuration, database: Database, keyring: Keyring) -> Iterator[Check]:
    folder = configuration.home / SNAPSHOT_FOLDER
    if not folder.exists():
        yield Check("snapshot", WARNING, f"{folder} does not exist yet", _START)
        return
    try:
        with closing(open_snapshot(configuration, database)) as snapshot:
            version = snapshot.version()
            publisher = publisher_for(configuration, database, snapshot, keyring)
            in_step, lacking, held = publisher.is_in_step(), publisher.lacking_plans(), publisher.held_prices()
    except FAILURES as error:
        yield Check("snapshot", FAILED, str(error), _unpublished(error, folder))
        return
    if not in_step:
        advice = "`watchllm up` publishes; if it is running, see its log"
        yield Check("snapshot", FAILED, f"version {version} is behind the database", advice)
    elif lacking:
        yield Check("snapshot", FAILED, lacking, "everybody else's changes are published")
    else:
        yield Check("snapshot", OK, f"version {version}, in step with the database")
    if held:
        yield Check("prices", WARNING, held, "everything else is published from here")


def _unpublished(error: Exception, folder: Path) -> str:
    """What that means, or what to do about it."""
    if isinstance(error, PricesUnusable | PlansUnusable):
        return "nothing new is published until then; what was before serves on"
    if isinstance(error, OtherInstallation):
        return "nothing is published from this host until then"
    if isinstance(error, Unavailable):
        # The folder is the last copy, which proxies serve from meanwhile: nobody should be told to remove it.
        return "proxies serve what was published last"
    return f"remove {folder} and start `watchllm up`"


def _configured(configuration: Configuration) -> Iterator[Check]:
    """What does not depend on the home folder."""
    if configuration.redis_url is not None:
        from watchllm.compose.doctor_redis import examine_redis  # few installations have one

        yield from examine_redis(configuration)
    yield from examine_providers(configuration)
    yield from examine_embedder(configuration)
    yield from examine_cross_encoder(configuration)


def _no_provider() -> Check:
    advice = "set OPENAI_API_KEY (or GROQ_…, OPENROUTER_…), or `watchllm provider-key add`"
    return Check("providers", OK, "no provider key for the instance: the simulated provider answers", advice)


def _port(what: str, host: str, port: int, variable: str) -> Check:
    name = f"{what} port"
    if port == 0:
        return Check(name, OK, "any free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return Check(name, FAILED, f"{host}:{port} needs more rights", f"set {variable} to a port above 1023")
        except OSError:
            pass
        else:
            return Check(name, OK, f"{host}:{port} is free")
    if what == "proxy" and _answers_health(host, port):
        return Check(name, OK, f"a proxy answers on {host}:{port}")
    if what == "console" and _answers(host, port):
        return Check(name, OK, f"something answers on {host}:{port}, probably the console that is running")
    return Check(name, FAILED, f"{host}:{port} is taken by another program", f"set {variable}, or stop that program")


def _answers_health(host: str, port: int) -> bool:
    return _status(host, port, "/health") in (200, 503)


def _answers(host: str, port: int) -> bool:
    return _status(host, port, "/") is not None


def _status(host: str, port: int, path: str) -> int | None:
    with closing(HTTPConnection("127.0.0.1" if host in ("0.0.0.0", "") else host, port, timeout=2)) as connection:
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, HTTPException):
            return None
