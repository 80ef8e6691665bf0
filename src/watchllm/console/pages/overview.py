"""The overview: what is there. Every number comes from the database, the cache file or a proxy's own counters; what
could not be learnt is said to be unknown."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watchllm.analytics import key_use_log
from watchllm.analytics.key_use_log import KeyState
from watchllm.cache.entry import CacheStats
from watchllm.configuration import Configuration, mask, mask_url
from watchllm.console.cookies import console_of
from watchllm.console.owned import own_of
from watchllm.console.page import render, signed_in, to_sign_in
from watchllm.console.proxies import ProxyState
from watchllm.console.services import Console
from watchllm.control import vendors
from watchllm.control.keys import Key
from watchllm.control.projects import Project
from watchllm.control.provider_keys import SIMULATED, ProviderKey
from watchllm.control.users import User
from watchllm.domain.usage_event import BYPASS, HIT, HIT_COALESCED, HIT_PARTIAL, HIT_SEMANTIC, HIT_STALE, MISS

MOST_PROJECTS = 50
MOST_KEYS = 20
"""Rows that one page shows; how many there are besides is said, and which command lists them."""

_MEANING = {
    HIT: "answered from the cache",
    HIT_SEMANTIC: "answered from the cache, by meaning",
    HIT_COALESCED: "joined a call already under way",
    HIT_PARTIAL: "embeddings of which some were known",
    HIT_STALE: "an expired entry, because upstream failed",
    MISS: "asked upstream",
    BYPASS: "not cacheable, or the cache was off",
}


@dataclass(frozen=True, slots=True)
class CacheState:
    """Requests in one cache state; `share` of all, 0 to 1."""

    name: str
    meaning: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Live:
    """What changes by itself. `saved_usd` and the rest of the counters since the proxies that run now were started.

    `hits` are answers: who joined a call that failed was not served. `hit_share`: of the requests that looked into the
    cache, None when there was none. `pending`: a change is saved but not published.
    """

    proxies: Sequence[ProxyState]
    answering: int
    states: Sequence[CacheState]
    requests: int
    hits: int
    hit_share: float | None
    unauthenticated: int
    saved_usd: float
    cost_usd: float
    cache: CacheStats | None
    cache_problem: str
    version: int
    pending: bool
    behind: int
    read_at_ms: int


@dataclass(frozen=True, slots=True)
class ProjectCard:
    """A project with the newest of its `keys` first; `more_keys` are there besides. `uses`: by a provider key's id,
    when it was last used and whether the provider refuses it; one that is not in it was never used."""

    project: Project
    keys: Sequence[Key]
    more_keys: int
    provider_keys: Sequence[ProviderKey]
    uses: Mapping[str, KeyState]


@dataclass(frozen=True, slots=True)
class InstanceProvider:
    """A provider that every project may use. `masked` empty: no key is set."""

    name: str
    base_url: str
    masked: str
    note: str


@dataclass(frozen=True, slots=True)
class Overview:
    """`base_url` is what an OpenAI client takes, None when the port is not known; `now_ms` tells expired keys."""

    organization: str
    base_url: str | None
    model: str
    projects: Sequence[ProjectCard]
    more_projects: int
    providers: Sequence[InstanceProvider]
    live: Live
    now_ms: int


async def show(request: Request) -> Response:
    user = await signed_in(request)
    if user is None:
        return to_sign_in()
    console = console_of(request)
    live, kept = await asyncio.gather(_live(console), run_in_threadpool(_kept, console, user))
    organization, cards, more = kept
    page = Overview(
        organization=organization,
        base_url=base_url(console.configuration, request.url.hostname),
        model="sim/echo",
        projects=cards,
        more_projects=more,
        providers=instance_providers(console.configuration),
        live=live,
        now_ms=int(console.now() * 1000),
    )
    return render(request, "overview.html", "Overview", page, user=user)


async def numbers(request: Request) -> Response:
    """The part that changes by itself, for the page to renew; 401 when the session has ended."""
    user = await signed_in(request)
    if user is None:
        return Response(status_code=401)
    return render(request, "live.html", "Overview", await _live(console_of(request)), user=user)


def base_url(configuration: Configuration, host_in_use: str | None) -> str | None:
    """Where clients reach the proxy. A proxy that listens on all addresses is named as the browser names this host."""
    if configuration.public_url:
        return f"{configuration.public_url}/v1"
    if configuration.proxy_port == 0:
        return None
    host = configuration.host
    if host in ("0.0.0.0", "::"):
        host = host_in_use or "127.0.0.1"
    scheme = "https" if configuration.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{configuration.proxy_port}/v1"


def instance_providers(configuration: Configuration) -> list[InstanceProvider]:
    """The simulated provider, and those that the operator's environment or file names."""
    known = vendors.by_name()
    rows = []
    for name, provider in configuration.instance_providers.items():
        url = provider.base_url or known[name].base_url
        note = "ready" if provider.api_key else f"no key: set {name.upper()}_API_KEY, or give a project one"
        rows.append(
            InstanceProvider(name, mask_url(url), mask(provider.api_key or "") if provider.api_key else "", note)
        )
    if SIMULATED not in configuration.instance_providers:
        rows.append(InstanceProvider(SIMULATED, "in the proxy", "", "built in, needs no key, costs nothing"))
    return rows


def summed(states: Sequence[ProxyState]) -> list[CacheState]:
    """Requests by cache state over all proxies, those with a meaning for the cache only."""
    counts = {name: sum(state.requests.get(name, 0) for state in states) for name in _MEANING}
    total = sum(counts.values())
    return [CacheState(name, _MEANING[name], count, count / total) for name, count in counts.items() if count]


def hits_of(states: Sequence[ProxyState]) -> tuple[int, float | None]:
    """How many requests were answered by a hit of any kind, and their share of those that looked into the cache, None =
    there was none."""
    hits = sum(
        count for state in states for name, count in state.answered.items() if name.startswith(HIT) and name in _MEANING
    )
    looked = sum(
        count for state in states for name, count in state.requests.items() if name in _MEANING and name != BYPASS
    )
    return hits, hits / looked if looked else None


async def _live(console: Console) -> Live:
    states, version, pending, cache = await asyncio.gather(
        console.proxies.read(),
        run_in_threadpool(console.published_version),
        run_in_threadpool(console.plane.has_unpublished),
        run_in_threadpool(console.cache_totals),
    )
    by_state = summed(states)
    hits, hit_share = hits_of(states)
    answering = [state for state in states if state.answers]
    return Live(
        proxies=states,
        answering=len(answering),
        states=by_state,
        requests=sum(sum(state.requests.values()) for state in states),
        hits=hits,
        hit_share=hit_share,
        unauthenticated=sum(state.unauthenticated for state in states),
        saved_usd=sum(state.saved_usd for state in states),
        cost_usd=sum(state.cost_usd for state in states),
        cache=cache if isinstance(cache, CacheStats) else None,
        cache_problem=cache if isinstance(cache, str) else "",
        version=version,
        pending=pending,
        behind=sum(1 for state in answering if (state.snapshot_version or 0) < version),
        read_at_ms=int(console.now() * 1000),
    )


def _kept(console: Console, user: User) -> tuple[str, list[ProjectCard], int]:
    """What the user's organization has: its name, its projects, and how many more there are."""
    own = own_of(console, user)
    shown = own.projects(None, MOST_PROJECTS)
    cards = []
    for project in shown:
        keys = sorted(console.plane.keys(project.id), key=lambda key: (key.revoked_ms is not None, -key.created_ms))
        cards.append(
            ProjectCard(
                project,
                keys[:MOST_KEYS],
                max(0, len(keys) - MOST_KEYS),
                console.plane.provider_keys(project.id),
                _uses(console, project.id),
            )
        )
    return own.organization().name, cards, own.project_count() - len(shown)


def _uses(console: Console, project_id: str) -> Mapping[str, KeyState]:
    with console.plane.database.reporting() as connection:
        return key_use_log.states(connection, project_id)


ROUTES = [
    Route("/", show, methods=["GET"]),
    Route("/live", numbers, methods=["GET"]),
]
