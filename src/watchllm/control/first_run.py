"""The very first run: an organization, its owner, a project and a key, so that one curl line works as pasted."""

import secrets

import msgspec
from sqlalchemy import insert, select

from watchllm.control import keys, organizations, projects, users
from watchllm.control.database import Database
from watchllm.control.tables import instance
from watchllm.domain.settings import ON, ProjectSettings

OWNER_EMAIL = "owner@localhost"
PROJECT_NAME = "default"
_MARK = "first_run"


class FirstRun(msgspec.Struct, frozen=True):
    """What is shown once and never again: the console's sign-in and a project key."""

    email: str
    password: str
    project_id: str
    key: str
    provider: str

    def __repr__(self) -> str:
        return f"FirstRun(email={self.email!r}, project_id={self.project_id!r})"


def is_due(database: Database) -> bool:
    """Whether it never was."""
    return database.value(_MARK) is None


def run(database: Database, provider: str) -> FirstRun | None:
    """Make them, unless that was ever done; all in one transaction. `provider` becomes the project's default."""
    if not is_due(database):
        return None
    with database.unit_of_work("first-run") as work:
        # Asked again under the write lock: another process may have been first.
        if work.connection.scalar(select(instance.c.name).where(instance.c.name == _MARK)) is not None:
            return None
        work.connection.execute(insert(instance).values(name=_MARK, value=str(work.now_ms).encode()))
        organization = organizations.default(work)
        password = secrets.token_urlsafe(15)
        users.create(work, organization.id, OWNER_EMAIL, password, "owner")
        project = projects.create(
            work, organization.id, PROJECT_NAME, ProjectSettings(default_provider=provider, semantic=ON)
        )
        new_key = keys.create(
            work,
            project.id,
            name="first key",
            test=False,
            scopes=keys.SCOPES,
            expires_at=keys.NEVER_EXPIRES,
            own_limits={},
        )
        return FirstRun(OWNER_EMAIL, password, project.id, new_key.secret, provider)
