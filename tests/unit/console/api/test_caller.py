"""Who is let in to the management API, and how many wrong tokens an address may try."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from watchllm.console.api.caller import TokenGate
from watchllm.console.throttle import MAX_FAILURES, WINDOW_SECONDS, FailureThrottle
from watchllm.control.tokens import Token
from watchllm.domain import tokens
from watchllm.domain.errors import GatewayError

if TYPE_CHECKING:
    from watchllm.control.plane import ControlPlane

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Plane:
    """Knows the tokens in `known`, and how often it was asked."""

    def __init__(self) -> None:
        self.known: dict[bytes, Token] = {}
        self.looked_up = 0

    def make(self) -> str:
        secret = tokens.generate()
        self.known[tokens.digest(secret)] = Token(f"tok_{len(self.known)}", "org_1", "", "", "admin", 0, 0)
        return secret

    def token_in_force(self, digest: bytes, now_ms: int) -> Token | None:
        self.looked_up += 1
        return self.known.get(digest)


class Gate:
    def __init__(self) -> None:
        self.now = 1000.0
        self.plane = Plane()
        plane = cast("ControlPlane", self.plane)
        self._gate = TokenGate(plane, FailureThrottle(lambda: self.now), lambda: self.now)

    def ask(self, token: str | None, address: str = HERE, *, header: str | None = None) -> str:
        """`in`, or the code of the refusal."""
        authorization = header if token is None else f"Bearer {token}"
        try:
            asyncio.run(self._gate.caller(authorization, address))
        except GatewayError as error:
            self.refusal = error
            return error.code
        return "in"


def test_a_token_in_force_is_let_in_and_looked_up_each_time() -> None:
    gate = Gate()
    token = gate.plane.make()
    assert [gate.ask(token), gate.ask(None, header=f"bearer  {token} ")] == ["in", "in"]
    gate.plane.known.clear()
    assert gate.ask(token) == "invalid_token"
    assert gate.plane.looked_up == 3


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic bGd3", "lgw_admin_x"])
def test_no_token_is_told_from_a_wrong_one(header: str | None) -> None:
    gate = Gate()
    assert {gate.ask(None, header=header) for _ in range(MAX_FAILURES * 2)} == {"missing_token"}


def test_a_mistyped_token_costs_no_look_up_but_counts() -> None:
    gate = Gate()
    wrong = tokens.generate()[:-1] + "!"
    assert [gate.ask(wrong) for _ in range(MAX_FAILURES)] == ["invalid_token"] * MAX_FAILURES
    assert gate.plane.looked_up == 0
    assert gate.ask(wrong) == "too_many_attempts"


def test_after_too_many_wrong_tokens_an_address_waits() -> None:
    gate = Gate()
    for _ in range(MAX_FAILURES):
        assert gate.ask(tokens.generate()) == "invalid_token"
    fresh = gate.plane.make()
    looked_up = gate.plane.looked_up
    assert gate.ask(fresh) == gate.ask(tokens.generate()) == "too_many_attempts"
    assert (gate.refusal.status, gate.refusal.retry_after) == (429, WINDOW_SECONDS)
    assert gate.plane.looked_up == looked_up
    assert gate.ask(fresh, ELSEWHERE) == "in"
    gate.now += WINDOW_SECONDS
    assert gate.ask(tokens.generate()) == "invalid_token"


def test_who_was_in_before_is_not_held_up_by_the_wrong_tokens_of_others_at_the_same_address() -> None:
    gate = Gate()
    token = gate.plane.make()
    assert gate.ask(token) == "in"
    for _ in range(MAX_FAILURES * 2):
        gate.ask(tokens.generate())
    assert gate.ask(token) == "in"
    gate.plane.known.clear()
    assert gate.ask(token) == "invalid_token"
    assert gate.ask(token) == "too_many_attempts"
