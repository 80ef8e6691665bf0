"""What a request gives by URL, on its way to candidates that may not be handed it (see `images`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from watchllm.providers.dialect import CHAT
from watchllm.providers.translation import between
from watchllm.proxy.approach import Candidate
from watchllm.proxy.images import inlined, is_on_own_network, refuse_private
from watchllm.proxy.plan import Plan
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services

_URL_FIELDS = frozenset(("url", "image_url", "file_url", "video_url", "audio_url"))
_TOOL_URL_FIELDS = frozenset(("server_url",))


async def see_to_pictures(services: Services, request: Request, plan: Plan, candidates: tuple[Candidate, ...]) -> None:
    """Have the plan give the images themselves to those of `candidates` that take no URLs, and hand nobody on the
    operator's own network a URL that leads there.

    Raises BadRequest, naming the field, for what may not be handed on or cannot be fetched.
    """
    document = plan.document
    named = list(_urls(document))
    if not named:
        return
    await _refuse_neighbours(services, named, candidates)
    needing = [candidate for candidate in candidates if candidate.target.vendor.fetch_images]
    if needing:
        chat = between.request_in(CHAT, plan.dialect, document, needing[0].target.model).document
        plan.inline(await inlined(services, request, chat), chat, needing)


async def refuse_neighbours(services: Services, document: dict[str, Any], candidate: Candidate) -> None:
    """Raise BadRequest where a request that goes to one candidate names a URL that this one may not be handed."""
    await _refuse_neighbours(services, list(_urls(document)), (candidate,))


async def _refuse_neighbours(
    services: Services, named: list[tuple[str, str]], candidates: tuple[Candidate, ...]
) -> None:
    if not named or services.outbound.destinations.allow_private:
        return
    for candidate in candidates:
        if await is_on_own_network(services, candidate):
            for field, url in named:
                await refuse_private(services, url, field)
            break


def _urls(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a request names by URL in the parts of its messages, and the servers of tools that the provider calls: the
    field, as a path, and the URL."""
    yield from _found([(field, document.get(field)) for field in ("messages", "input", "system")], _URL_FIELDS)
    # Tools describe fields of any name, so of theirs only this one counts.
    yield from _found([("tools", document.get("tools"))], _TOOL_URL_FIELDS)
    yield from _found([("mcp_servers", document.get("mcp_servers"))], _URL_FIELDS)


def _found(level: list[tuple[str, Any]], fields: frozenset[str]) -> Iterator[tuple[str, str]]:
    while level:
        path, node = level.pop()
        if type(node) is list:
            level.extend((f"{path}[{place}]", item) for place, item in enumerate(node))
        elif type(node) is dict:
            for field, value in node.items():
                if type(value) is dict or type(value) is list:
                    level.append((f"{path}.{field}", value))
                elif type(value) is str and field in fields and value[:5].lower() != "data:":
                    yield f"{path}.{field}", value
