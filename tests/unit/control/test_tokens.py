"""Management tokens: shown once, kept as a digest, out of force as soon as they are revoked or over."""

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from watchllm.control import tables
from watchllm.control.errors import Invalid, NotFound
from watchllm.domain.tokens import digest, is_well_formed

if TYPE_CHECKING:
    from tests.unit.control.conftest import World


def now_ms() -> int:
    return int(time.time() * 1000)


def test_a_token_is_found_by_its_digest_until_it_is_revoked(world: "World") -> None:
    made, other = world.plane.create_token(name="ci"), world.plane.create_token(role="viewer")
    assert is_well_formed(made.secret)
    assert world.plane.token_in_force(digest(made.secret), now_ms()) == made.record
    revoked = world.plane.revoke_token(made.record.id)
    assert world.plane.revoke_token(made.record.id) == revoked
    assert world.plane.token_in_force(digest(made.secret), now_ms()) is None
    assert world.plane.token_in_force(digest(other.secret), now_ms()) == other.record
    assert world.plane.tokens() == [revoked, other.record]


def test_a_token_ends_when_it_was_said(world: "World") -> None:
    ends = int(time.time()) + 100
    made = world.plane.create_token(expires_at=ends)
    assert world.plane.token_in_force(digest(made.secret), ends * 1000 - 1) == made.record
    assert world.plane.token_in_force(digest(made.secret), ends * 1000) is None


def test_nothing_but_a_digest_is_kept_and_nothing_shows_the_secret(world: "World") -> None:
    made = world.plane.create_token(name="ci")
    world.plane.revoke_token(made.record.id)
    with world.plane.database.reading() as connection:
        rows = repr(connection.execute(select(tables.tokens)).all()) + repr(
            connection.execute(select(tables.audit)).all()
        )
    assert made.secret not in rows
    assert made.secret not in repr(made)
    lines = world.plane.audit()
    assert [line.action for line in lines] == ["token.revoke", "token.create", "organization.create"]
    assert {line.object_id for line in lines[:2]} == {made.record.id}


def test_proxies_know_no_tokens(world: "World") -> None:
    made = world.plane.create_token()
    world.plane.create_project("so that something is published")
    assert world.reader.key(digest(made.secret)) is None


@pytest.mark.parametrize("wrong", [{"role": "owner"}, {"name": "x" * 201}, {"name": "a\nb"}, {"expires_at": 1}])
def test_a_token_of_the_wrong_form_is_refused(world: "World", wrong: dict[str, str | int]) -> None:
    with pytest.raises(Invalid):
        world.plane.create_token(**wrong)  # type: ignore[arg-type]
    assert world.plane.tokens() == []


def test_what_does_not_exist_is_not_found(world: "World") -> None:
    with pytest.raises(NotFound, match="watchllm token list"):
        world.plane.revoke_token("tok_" + "0" * 32)
    with pytest.raises(NotFound, match="watchllm organization list"):
        world.plane.create_token("org_" + "0" * 32)
