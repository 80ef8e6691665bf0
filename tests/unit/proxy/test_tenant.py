"""A project as one version of the snapshot shows it: what the headers of its requests ask for is remembered."""

from typing import Any, cast

import pytest

from watchllm.cache.entry import NEVER, Entry
from watchllm.domain.errors import BadRequest
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import ProjectRecord
from watchllm.proxy.directives import directives
from watchllm.proxy.tenant import Tenant

NO_STORE = {b"cache-control": b"no-store"}


def tenant(**settings: Any) -> Tenant:
    project = ProjectRecord("prj_1", "org_1", "one", ProjectSettings(**settings))
    return Tenant(project, test=False, router=cast(Any, None))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        NO_STORE,
        {b"cache-control": b"max-age=5, stale-if-error=9"},
        {b"x-watchllm-cache": b"off"},
        {b"x-watchllm-cache": b"refresh"},
        {b"x-watchllm-cache-ttl": b"7"},
        {b"x-watchllm-timeout": b"1.5"},
        {b"x-watchllm-cache-scope": b"user", b"x-watchllm-user": b"ann"},
        {b"x-watchllm-cache-scope": b"user", b"x-watchllm-user": b"bob"},
        {b"x-watchllm-cache-scope": b"user"},
    ],
)
@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("scope", ["project", "user"])
def test_what_is_remembered_is_what_the_headers_say(headers: dict[bytes, bytes], embeddings: bool, scope: str) -> None:
    of = tenant(cache_scope=scope, cache_ttl=100, cache_ttl_embeddings=200)
    for other in (NO_STORE, {b"x-watchllm-cache-scope": b"user", b"x-watchllm-user": b"eve"}):
        of.wishes(other, embeddings=embeddings)
        of.wishes(headers, embeddings=not embeddings)
        expected = directives(headers, of.settings, embeddings=embeddings)
        assert of.wishes(headers, embeddings=embeddings) == expected
        assert of.wishes(dict(headers), embeddings=embeddings) == expected


def test_two_users_never_share_what_is_remembered() -> None:
    of = tenant(cache_scope="user")
    users = [of.wishes({b"x-watchllm-user": name}, embeddings=False).user for name in (b"ann", b"bob", b"")]
    assert users == ["ann", "bob", ""]


def test_what_is_wrong_is_refused_each_time() -> None:
    of = tenant()
    for _ in range(2):
        with pytest.raises(BadRequest):
            of.wishes({b"x-watchllm-cache": b"sometimes"}, embeddings=False)


def test_what_is_remembered_is_bounded_in_number_and_size() -> None:
    of = tenant()
    for number in range(1000):
        of.wishes({b"x-watchllm-cache-ttl": b"%d" % number}, embeddings=False)
    of.wishes({b"cache-control": b"no-store, " + b"x" * 10_000}, embeddings=False)
    assert len(of._wishes) <= 64
    assert all(len(value or b"") <= 256 for said in of._wishes for value in said)


def test_an_answer_of_this_very_millisecond_is_too_old_for_max_age_0() -> None:
    entry = Entry(1000, NEVER, "generate", "openai", "gpt-4o-mini", None, None, "key_1", b"{}")
    wished = tenant().wishes({b"cache-control": b"max-age=0"}, embeddings=False)
    assert not wished.accept(entry, 1000)
    wished = tenant().wishes({b"cache-control": b"max-age=1"}, embeddings=False)
    assert wished.accept(entry, 1999)
    assert not wished.accept(entry, 2000)
