"""Who is signed in: a signed cookie that any console process can read, and the form tokens that go with it.

A session is a signed statement of a user's id, a nonce and an end; nothing of it is kept on the server. A form token is
a MAC over the browser's own random cookie and that nonce: it is worth nothing in another browser, before sign-in or
after sign-out. Both keys are derived from the master secret.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

import msgspec
from itsdangerous import BadData, URLSafeSerializer

SESSION_SECONDS = 7 * 86_400
_MAX_COOKIE = 1024


class Session(msgspec.Struct, frozen=True):
    """`expires_at` in epoch seconds; `nonce` tells one sign-in from another."""

    user_id: str
    nonce: str
    expires_at: int


class Sessions:
    """Opens and reads sessions under `key` (32 secret bytes). `now` gives epoch seconds."""

    def __init__(self, key: bytes, now: Callable[[], float]) -> None:
        self._now = now
        self._form_key = hashlib.blake2b(b"forms", key=key, digest_size=32).digest()
        self._serializer = URLSafeSerializer(
            key, salt=b"session", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )

    def open(self, user_id: str) -> str:
        """The cookie of a new session, which ends SESSION_SECONDS from now."""
        session = Session(user_id, secrets.token_urlsafe(16), int(self._now()) + SESSION_SECONDS)
        return str(self._serializer.dumps(msgspec.to_builtins(session)))

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None when there is none, or it is not ours, altered or over."""
        if not cookie or len(cookie) > _MAX_COOKIE:
            return None
        try:
            session = msgspec.convert(self._serializer.loads(cookie), Session)
        except (BadData, msgspec.ValidationError):
            return None
        return session if self._now() < session.expires_at else None

    def form_token(self, browser: str, session: Session | None) -> str:
        """What a form of this browser must carry; `browser` is its random cookie."""
        bound = f"{browser}|{session.nonce if session else ''}".encode()
        return hmac.digest(self._form_key, bound, "sha256").hex()

    def is_form_token(self, given: str, browser: str, session: Session | None) -> bool:
        expected = self.form_token(browser, session)
        return hmac.compare_digest(given.encode(), expected.encode())
