"""Which of a provider's other paths pass, and under what name they are logged.

A path must mean the same to us, to every server between us and the provider, and to the provider: what some of them
would decode or shorten before they look at it could lead from a harmless path to another tenant's objects or to the
administration of the account.
"""

from __future__ import annotations

from watchllm.domain.billable import INFERENCE
from watchllm.domain.errors import BadRequest, NotFound, WireRefusal
from watchllm.providers.endpoints import ENDPOINTS

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"))
# What keeps no objects at the provider. Every other path may show one tenant what another one left there, so it needs
# the project's own provider key.
_STATELESS = frozenset(
    (
        b"/v1/audio/speech",
        b"/v1/audio/transcriptions",
        b"/v1/audio/translations",
        b"/v1/images/edits",
        b"/v1/images/generations",
        b"/v1/images/variations",
        b"/v1/moderations",
    )
)
# A model answers there, too, though objects of the project's may be named.
_ANSWERS = _STATELESS | {b"/v1/responses/compact"}
_GIVES = frozenset((b"GET", b"HEAD", b"DELETE"))
# What is left there costs nothing by itself: files are kept, conversations noted, objects renamed.
_KEEPS = frozenset((b"conversations", b"files", b"uploads"))
_CHANGES = (b"/v1/chat/completions/",)
_COUNTS = b"/v1/responses/input_tokens"
_ENDS_WORK = b"/cancel"
# Work that goes on when the answer is there, or of which the request does not say how much it is.
_DONE_LATER = frozenset(
    (
        b"agents",
        b"batch",
        b"batches",
        b"containers",
        b"evals",
        b"fine-tunes",
        b"fine_tuning",
        b"realtime",
        b"threads",
        b"vector_stores",
        b"videos",
    )
)
# These administer the provider's account: users, keys, bills. They never pass.
_ADMINISTRATION = frozenset(
    (
        b"admin",
        b"api_keys",
        b"billing",
        b"dashboard",
        b"organization",
        b"organizations",
        b"projects",
        b"usage",
        b"users",
    )
)
# What the contract gives a meaning of its own: passed through, it would go around cache, routes and limits. Providers
# that do not mind case would answer it in other letters, too.
_NOT_YET = frozenset((b"/v1/feedback",))
_GENERATION = frozenset(b"/v1" + endpoint.path.encode() for endpoint in ENDPOINTS)
_NAME = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_PLAIN = _NAME | frozenset(b".~:@!$&'()*+,=")


def is_stateless(path: bytes) -> bool:
    """Whether the provider keeps nothing of what is sent there."""
    return path in _STATELESS


def may_cost(path: bytes, method: bytes) -> bool:
    """Whether a provider may charge for such a request. Listing, retrieving, deleting, cancelling and keeping files
    costs nothing."""
    if path.lower() in _STATELESS:
        return True
    if method in _GIVES or path.endswith(_ENDS_WORK) or path == _COUNTS or path.startswith(_CHANGES):
        return False
    return path.split(b"/")[2] not in _KEEPS


def is_done_later(path: bytes) -> bool:
    """Whether what is asked for there is not in the answer, so that it does not tell what was used."""
    return not _DONE_LATER.isdisjoint(path.lower().split(b"/")[2:])


def checked(path: bytes, method: bytes) -> str:
    """The endpoint's name for the log: the first segment behind `/v1/`, and `.objects` where that is an endpoint at
    which models answer, and this asks for something that is kept there.

    Raises WireRefusal 405 for a method that no provider has, NotFound for administration, for what is not served yet
    and for a path of the gateway's own in other letters, BadRequest for a path that can be read in two ways.
    """
    if method not in _METHODS:
        raise WireRefusal(
            f"The method {method.decode('latin-1')[:20]} is not passed through.",
            status=405,
            code="method_not_allowed",
            allow="GET, HEAD, POST, PUT, PATCH, DELETE",
        )
    known = path.lower()
    if known in _NOT_YET:
        raise NotFound(f"{known.decode('ascii')} is not in this version yet; use /v1/chat/completions.")
    if known in _GENERATION and path != known:
        raise NotFound(f"There is nothing at {path.decode('ascii')}; write it {known.decode('ascii')}.")
    if path.endswith(b"/") and path.strip(b"/") != b"v1":
        raise BadRequest(f"Leave out the slash at the end of the path {path.decode('latin-1')[:200]}.")
    first, *others = path.split(b"/")[2:]
    if not first or not _NAME.issuperset(first) or not all(_is_unambiguous(segment) for segment in others):
        raise BadRequest(
            "The path can be read in two ways: leave out '.', '..', '//', ';', backslashes and needless escapes."
        )
    name = first.lower()
    if name in _ADMINISTRATION:
        raise NotFound("Administration of a provider's account does not pass through this gateway.")
    label = name.decode("ascii")[:40]
    if label in INFERENCE and (method != b"POST" or known not in _ANSWERS):
        return f"{label}.objects"
    return label


def _is_unambiguous(segment: bytes) -> bool:
    """Neither empty nor dots, and nothing escaped but what has to be."""
    if segment in (b"", b".", b".."):
        return False
    plain, *escapes = segment.split(b"%")
    if not _PLAIN.issuperset(plain):
        return False
    for escape in escapes:
        try:
            escaped = bytes.fromhex(escape[:2].decode("ascii"))
        except ValueError:
            return False
        if len(escaped) != 1 or escaped[0] < 0x20 or escaped[0] in _NAME or escaped in b"./\\%;~\x7f":
            return False
        if not _PLAIN.issuperset(escape[2:]):
            return False
    return True
