"""What a database's driver says, in one line, and what to do about it."""

from sqlalchemy.exc import DBAPIError

from watchllm.control.errors import DatabaseUnusable
from watchllm.control.private_schema import SCHEMA

SAYS_MORE = "; `watchllm doctor` says more"
"""Ends messages of what only failed; `doctor` itself leaves it out."""

_NO_RIGHTS = (
    f"the role lacks rights: connect as the owner of the schema {SCHEMA}, or, where there is none yet, as one that may "
    "create it"
)
_NO_ENTRY = "is the role right, and its password? Marks in it are percent-encoded: / is %2F, # %23, @ %40"
# By the code that PostgreSQL gives, which is the same in every language of its messages.
_BY_STATE = {"42501": _NO_RIGHTS, "42P01": _NO_RIGHTS, "3F000": _NO_RIGHTS}
# A refused connection has no code yet.
_BY_TEXT = {"password": _NO_ENTRY, "authentication": _NO_ENTRY, "pg_hba.conf": _NO_ENTRY, "role ": _NO_ENTRY}


def unusable(what: str, error: DBAPIError, more: str = "") -> DatabaseUnusable:
    """The error that says that `what` failed, with the advice where its cause is a known one."""
    told = str(error.orig)
    # Below its first lines a driver shows the statement, which is nothing that whoever reads it has written.
    line = " ".join(told.partition("\nLINE ")[0].split())
    found = DatabaseUnusable(f"{what}: {line}")
    found.advice = _BY_STATE.get(str(getattr(error.orig, "sqlstate", "")), "")
    if not found.advice and "connection" in line:
        found.advice = next((advice for text, advice in _BY_TEXT.items() if text in line), "")
    if found.advice or more:
        found.args = (f"{found}; {found.advice}" if found.advice else f"{found}{more}",)
    return found
