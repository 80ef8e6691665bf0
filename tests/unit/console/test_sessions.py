"""Session cookies say who is signed in until they end, and cannot be made, altered or prolonged without the key."""

import pytest

from watchllm.console.sessions import SESSION_SECONDS, Sessions

KEY = bytes(range(32))


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_lasts_seven_days_and_no_longer() -> None:
    clock = Clock()
    sessions = Sessions(KEY, clock)
    cookie = sessions.open("usr_1")
    clock.now += 7 * 86_400 - 1
    session = sessions.read(cookie)
    assert session is not None
    assert session.user_id == "usr_1"
    clock.now += 1
    assert sessions.read(cookie) is None
    assert SESSION_SECONDS == 7 * 86_400


def test_any_console_with_the_same_secret_reads_it_and_no_other() -> None:
    clock = Clock()
    cookie = Sessions(KEY, clock).open("usr_1")
    assert Sessions(KEY, clock).read(cookie) is not None
    assert Sessions(bytes(32), clock).read(cookie) is None


def test_an_altered_cookie_is_none_at_every_position() -> None:
    sessions = Sessions(KEY, Clock())
    cookie = sessions.open("usr_1")
    for position, character in enumerate(cookie[:-1]):
        altered = cookie[:position] + ("A" if character != "A" else "B") + cookie[position + 1 :]
        assert sessions.read(altered) is None, position


@pytest.mark.parametrize("cookie", [None, "", "x", ".", "e30.AAAA", "é", "a" * 100_000])
def test_what_is_no_cookie_of_ours_is_nobody(cookie: str | None) -> None:
    assert Sessions(KEY, Clock()).read(cookie) is None


def test_a_form_token_is_no_session_and_belongs_to_one_browser_and_one_session() -> None:
    sessions = Sessions(KEY, Clock())
    first, second = sessions.read(sessions.open("usr_1")), sessions.read(sessions.open("usr_1"))
    token = sessions.form_token("browser", first)
    assert sessions.is_form_token(token, "browser", first)
    assert not sessions.is_form_token(token, "browser", second)
    assert not sessions.is_form_token(token, "browser", None)
    assert not sessions.is_form_token(token, "another", first)
    assert not sessions.is_form_token("ü", "browser", first)
    assert sessions.read(token) is None
