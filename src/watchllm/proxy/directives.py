"""What a request's headers ask of the cache and of its time: parsed once, never looser than the project allows."""

from __future__ import annotations

import msgspec

from watchllm.cache.entry import Entry
from watchllm.domain.errors import BadRequest
from watchllm.domain.settings import NEVER_EXPIRES, NEVER_STORE, ProjectSettings

_MAX_USER_LENGTH = 512
HEADERS = frozenset(
    (
        b"cache-control",
        b"x-watchllm-cache",
        b"x-watchllm-cache-scope",
        b"x-watchllm-cache-threshold",
        b"x-watchllm-cache-ttl",
        b"x-watchllm-timeout",
    )
)
_MODES = ("off", "exact", "semantic", "refresh")


class Directives(msgspec.Struct, frozen=True):
    """`read`/`store`: whether the cache may answer and keep. Seconds throughout; `ttl` -1 = never expires.

    `user` is the partition within the project where the scope is `user`, None where entries are the project's.
    `semantic`: answers to like questions will do, if the project says so; `threshold` is the least similarity then.
    """

    read: bool
    store: bool
    ttl: int
    max_age: int | None = None
    stale_if_error: int | None = None
    only_if_cached: bool = False
    user: str | None = None
    timeout: float | None = None
    semantic: bool = True
    threshold: float | None = None

    @property
    def bypass(self) -> bool:
        """Neither read nor store."""
        return not (self.read or self.store)

    def accept(self, entry: Entry, now_ms: int) -> bool:
        """Whether `entry` may answer, by its expiry and the age that was asked for."""
        if not entry.is_fresh(now_ms):
            return False
        return self.max_age is None or now_ms - entry.created_ms < self.max_age * 1000

    def accept_stale(self, entry: Entry, now_ms: int) -> bool:
        """Whether `entry` may answer when upstream fails."""
        if self.stale_if_error is None:
            return False
        return entry.is_fresh(now_ms) or now_ms - entry.expires_ms <= self.stale_if_error * 1000


def directives(headers: dict[bytes, bytes], settings: ProjectSettings, *, embeddings: bool = False) -> Directives:
    """Combine the project's policy with the request's wishes.

    Raises BadRequest, naming the header and the accepted form.
    """
    ttl = settings.cache_ttl_embeddings if embeddings else settings.cache_ttl
    if HEADERS.isdisjoint(headers) and settings.cache_scope == "project":
        cached = settings.cache and ttl != NEVER_STORE
        return Directives(cached, cached, ttl)
    # What was stored before the project said "never" must not answer either.
    read = store = settings.cache and ttl != NEVER_STORE
    user = None
    timeout = threshold = None
    semantic = True
    mode = headers.get(b"x-watchllm-cache")
    if mode is not None:
        text = mode.decode("latin-1").strip().lower()
        if text not in _MODES:
            raise BadRequest(f"X-WatchLLM-Cache is one of {', '.join(_MODES)}; got {text!r}.")
        if text == "off":
            read = store = False
        elif text == "refresh":
            read = False
        elif text == "exact":
            semantic = False
    wished_ttl = headers.get(b"x-watchllm-cache-ttl")
    if wished_ttl is not None:
        ttl = _shorter(ttl, _whole("X-WatchLLM-Cache-TTL", wished_ttl, lowest=-1))
    if b"x-watchllm-cache-threshold" in headers:
        threshold = _threshold(headers[b"x-watchllm-cache-threshold"])
    if headers.get(b"x-watchllm-timeout") is not None:
        timeout = _timeout(headers[b"x-watchllm-timeout"])
    if settings.cache_scope == "user" or b"x-watchllm-cache-scope" in headers:
        user = _user(headers, settings)
        if user == "":
            read = store = False
    wishes = headers.get(b"cache-control")
    if wishes is None:
        return Directives(
            read,
            store and ttl != NEVER_STORE,
            ttl,
            user=user,
            timeout=timeout,
            semantic=semantic,
            threshold=threshold,
        )
    asked = _cache_control(wishes)
    only_if_cached = "only-if-cached" in asked
    return Directives(
        read and "no-cache" not in asked,
        store and ttl != NEVER_STORE and "no-store" not in asked,
        ttl,
        _seconds(asked, "max-age"),
        _seconds(asked, "stale-if-error"),
        only_if_cached,
        user,
        timeout,
        semantic,
        threshold,
    )


def _cache_control(value: bytes) -> dict[str, str]:
    """Directives by lower-case name (RFC 9111, section 5.2); those that mean nothing here stay unused."""
    asked = {}
    for part in value.decode("latin-1").split(","):
        name, _, argument = part.partition("=")
        asked[name.strip().lower()] = argument.strip().strip('"')
    return asked


def _seconds(asked: dict[str, str], name: str) -> int | None:
    if name not in asked:
        return None
    return _whole(f"Cache-Control: {name}", asked[name].encode("latin-1"), lowest=0)


def _whole(name: str, value: bytes, *, lowest: int) -> int:
    text = value.decode("latin-1").strip()
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 12 or int(text) < lowest:
        raise BadRequest(f"{name} takes whole seconds, {lowest} or more; got {text[:40]!r}.")
    return int(text)


def _shorter(allowed: int, wished: int) -> int:
    if allowed == NEVER_EXPIRES:
        return wished
    return allowed if wished == NEVER_EXPIRES else min(allowed, wished)


def _threshold(value: bytes) -> float:
    """A similarity; an exact answer satisfies every one."""
    text = value.decode("latin-1").strip()
    try:
        threshold = float(text)
    except ValueError:
        threshold = 0.0
    if not 0.5 <= threshold <= 1.0:
        raise BadRequest(f"X-WatchLLM-Cache-Threshold takes a similarity from 0.50 to 1.00; got {text[:40]!r}.")
    return threshold


def _timeout(value: bytes) -> float:
    text = value.decode("latin-1").strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise BadRequest(f"X-WatchLLM-Timeout takes seconds, more than 0 and at most 86400; got {text[:40]!r}.")
    return seconds


def _user(headers: dict[bytes, bytes], settings: ProjectSettings) -> str | None:
    """The user whose entries this request may share; "" = scope `user` without a user, None = scope `project`."""
    scope = headers.get(b"x-watchllm-cache-scope", b"user" if settings.cache_scope == "user" else b"project")
    text = scope.decode("latin-1").strip().lower()
    if text not in ("user", "project"):
        raise BadRequest(f"X-WatchLLM-Cache-Scope is user or project; got {text!r}.")
    if text == "project" and settings.cache_scope == "project":
        return None
    user = headers.get(b"x-watchllm-user", b"").strip()
    if len(user) > _MAX_USER_LENGTH:
        raise BadRequest(f"X-WatchLLM-User is longer than {_MAX_USER_LENGTH} bytes.")
    return user.decode("latin-1")
