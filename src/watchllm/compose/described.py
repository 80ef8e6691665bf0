"""The effective configuration for people to read: as it was loaded, and with what the home folder itself provides."""

from watchllm.configuration import Configuration, Row, mask
from watchllm.stores import home


def described(configuration: Configuration) -> list[Row]:
    """Every setting, its value and its origin, secrets masked. The master secret of a home that has made its own comes
    from that file; none is made here.

    Raises HomeUnusable when that file cannot be read.
    """
    rows = configuration.describe()
    file = configuration.home / home.SECRET_FILE
    if configuration.secret_key is not None or not file.exists():
        return rows
    shown = mask(home.master_secret(configuration.home, None))
    return [Row(row.name, row.variable, shown, str(file)) if row.name == "secret_key" else row for row in rows]
