"""The key of a stored answer: a keyed hash over everything that can change the answer.

The parts are packed into one MessagePack array of fixed arity before they are hashed. MessagePack writes every part's
type and length before its content, so no two lists of parts give the same bytes, whatever the parts contain. The hash
is keyed so that nobody who can choose prompts can search for collisions or recognise keys of other installations.
"""

import hashlib

import msgspec

from watchllm.wire.types import Headers

KEY_LENGTH = 32
LABEL_LENGTH = 16
_ENTRY = "ent_"
_HEXADECIMAL = frozenset("0123456789abcdef")
ANSWER_HEADERS = frozenset((b"anthropic-version", b"anthropic-beta", b"openai-beta"))
"""The request headers that can change an answer, by their lower-case names."""


def key_in_dialect(key: bytes, dialect: str) -> bytes:
    """Where the answer to the question of `key` is kept that only requests in `dialect` may be given."""
    return hashlib.blake2b(dialect.encode(), key=key, digest_size=KEY_LENGTH, person=b"watchllm-told-1").digest()


def entry_id(key: bytes) -> str:
    """How people and clients name what is stored at `key`. It tells nothing about the question, and nothing outside the
    project: who names an entry is only ever given that project's."""
    return _ENTRY + key.hex()


def key_of(name: str) -> bytes:
    """The key of an entry's id. Raises ValueError for what is none."""
    digits = name.removeprefix(_ENTRY)
    if digits == name or len(digits) != 2 * KEY_LENGTH or not set(digits) <= _HEXADECIMAL:
        raise ValueError(f"an entry's id is {_ENTRY} and {2 * KEY_LENGTH} digits, as `watchllm explain` shows it")
    return bytes.fromhex(digits)


class Target(msgspec.Struct, frozen=True):
    """Where an answer comes from: the provider's name, its base URL and the resolved model."""

    provider: str
    base_url: str
    model: str


class KeyHash:
    """Makes keys. `secret` is 16 to 64 random bytes that all proxies of an installation share (`cache_hash`).

    Raises ValueError for a secret of another length.
    """

    __slots__ = ("_bodies", "_keyed", "_labels")

    def __init__(self, secret: bytes) -> None:
        if not 16 <= len(secret) <= 64:
            raise ValueError("the secret of the cache's hash must have 16 to 64 bytes")
        self._keyed = hashlib.blake2b(key=secret, digest_size=KEY_LENGTH, person=b"watchllm-exact-1")
        self._bodies = hashlib.blake2b(key=secret, digest_size=KEY_LENGTH, person=b"watchllm-body-1")
        self._labels = hashlib.blake2b(key=secret, digest_size=LABEL_LENGTH, person=b"watchllm-label-1")

    def bodies(self, partition: bytes, name: str) -> hashlib.blake2b:
        """The hash, to be copied and fed with a body, whose 32 bytes stand for a request's exact bytes to the endpoint
        `name`; `partition` has a fixed length."""
        keyed = self._bodies.copy()
        keyed.update(b"%b%b\0" % (partition, name.encode()))
        return keyed

    def label(self, partition: bytes, value: bytes) -> bytes:
        """16 bytes that stand for a `value` of a client's choice where those of other partitions are, too."""
        keyed = self._labels.copy()
        keyed.update(partition + value)
        return keyed.digest()

    def key(
        self,
        project_id: str,
        user: str | None,
        family: str,
        target: Target,
        headers: tuple[tuple[str, bytes], ...],
        query: bytes,
        canonical: bytes,
        item: bytes | None = None,
    ) -> bytes:
        """The 32-byte key of a request.

        `user` is given in the cache scope `user` only; `family` is `generate`, `completions` or `embeddings`; `headers`
        come from `answer_headers`; `item` is one embedding item's form, beside `embedding_base` as `canonical`.
        """
        # One flat array: an empty user is not "no user", and a target's parts cannot pass for one another.
        parts = (
            project_id,
            user,
            family,
            target.provider,
            target.base_url,
            target.model,
            headers,
            query,
            canonical,
            item,
        )
        keyed = self._keyed.copy()
        keyed.update(_pack(parts))
        return keyed.digest()


def answer_headers(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    """Those of ANSWER_HEADERS that there are, normalised: by name, lists trimmed, without repeats, in order.

    `headers` have names in lower case, as received.
    """
    found: dict[bytes, list[bytes]] | None = None
    for name, value in headers:
        if name in ANSWER_HEADERS:
            found = found or {}
            found.setdefault(name, []).append(value)
    if found is None:
        return ()
    return tuple((name.decode("ascii"), _as_one(values)) for name, values in sorted(found.items()))


def _as_one(values: list[bytes]) -> bytes:
    items = {item.strip() for value in values for item in value.split(b",")}
    return b",".join(sorted(items - {b""}))


_pack = msgspec.msgpack.Encoder().encode
