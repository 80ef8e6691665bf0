"""Keeps a home that has no database from making one where another installation publishes already."""

from pathlib import Path

from sqlalchemy import make_url

from watchllm.compose.database import is_postgres
from watchllm.configuration import Configuration, ConfigurationError
from watchllm.control.errors import OtherInstallation

SNAPSHOT_FOLDER = "snapshot"


def has_database(configuration: Configuration) -> bool:
    """Whether there is one already, as far as that can be told without asking it."""
    if is_postgres(configuration.database_url):
        return True
    file = make_url(configuration.database_url).database
    return not file or Path(file).exists()


def check_no_other(configuration: Configuration) -> None:
    """Raise OtherInstallation where a database would be made on this home beside that of the installation whose Redis
    is configured; nothing is made. Raises ConfigurationError for a Redis URL that cannot be used, and StoreBroken."""
    if configuration.redis_url is None or has_database(configuration):
        return
    # Here, not above: few installations have one.
    from watchllm.stores.redis.address import parse
    from watchllm.stores.redis.ownership import owner_at, refusal

    try:
        owner = owner_at(configuration.redis_url, configuration.home / SNAPSHOT_FOLDER)
        shown = parse(configuration.redis_url).shown
    except ValueError as error:
        raise ConfigurationError(f"WATCHLLM_REDIS_URL is not valid; expected {error}") from None
    if owner is not None:
        raise OtherInstallation(refusal(shown, f"this home's, which has no database ({configuration.database_url})"))
