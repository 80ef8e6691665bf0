"""Who calls: the management token of a request, looked up at each, so that a revoked one is refused from then on.

Wrong tokens are bounded for each address. Tokens that were right here a moment ago are not held up by others' wrong
ones: behind a load balancer, all may come from one address.
"""

from collections import OrderedDict
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from watchllm.console.throttle import FailureThrottle
from watchllm.control.plane import ControlPlane
from watchllm.control.tokens import Token
from watchllm.domain import tokens
from watchllm.domain.errors import LimitExceeded, Unauthorized

_MOST_KNOWN = 1000
# Not an account's: all wrong tokens of an address count together.
_ANY = ""


class TokenGate:
    """Lets in who has a token in force; `now` gives epoch seconds."""

    def __init__(self, plane: ControlPlane, throttle: FailureThrottle, now: Callable[[], float]) -> None:
        self._plane = plane
        self._throttle = throttle
        self._now = now
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def caller(self, authorization: str | None, address: str) -> Token:
        """The token of an `Authorization` header. Raises Unauthorized, and LimitExceeded after too many wrong ones."""
        scheme, _, text = (authorization or "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not text:
            raise Unauthorized(
                "Send a management token as `Authorization: Bearer lgw_admin_…`; `watchllm token create` makes one.",
                code="missing_token",
            )
        digest = tokens.digest(text)
        if digest not in self._known:
            wait = self._throttle.wait(_ANY, address)
            if wait is not None:
                raise LimitExceeded(
                    "Too many wrong tokens came from this address. Wait, then send one that is in force.",
                    code="too_many_attempts",
                    retry_after=wait,
                )
        token = await self._look_up(text, digest)
        if token is None:
            self._known.pop(digest, None)
            self._throttle.begin(_ANY, address)
            raise Unauthorized(
                "No such management token is in force. `watchllm token create` makes one; project keys are none.",
                code="invalid_token",
            )
        self._remember(digest)
        return token

    async def _look_up(self, text: str, digest: bytes) -> Token | None:
        if not tokens.is_well_formed(text):
            return None
        return await run_in_threadpool(self._plane.token_in_force, digest, int(self._now() * 1000))

    def _remember(self, digest: bytes) -> None:
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
