"""Asks each provider that the operator configured for its models, to tell a wrong key from a wrong address."""

import asyncio
from collections.abc import Iterator

import msgspec

from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.configuration import Configuration, mask_url
from watchllm.control import vendors
from watchllm.domain.errors import ProviderFailed
from watchllm.providers.dialect import MESSAGES
from watchllm.proxy.upstream import parse_base_url
from watchllm.wire.client import ClientPool, Response
from watchllm.wire.types import Timeouts, WireError

_TIMEOUTS = Timeouts(connect=3.0, first_byte=5.0, idle=5.0, total=8.0)
_MAX_BYTES = 16 << 20
# OpenRouter lists its models to everybody; this is what it shows to holders of a key only.
_KEY_PATHS = {"openrouter": b"/key"}


def examine_providers(configuration: Configuration) -> Iterator[Check]:
    """One check for each provider with a key or a base URL of the instance's; nothing is bought."""
    known = vendors.by_name()
    for name, provider in configuration.instance_providers.items():
        vendor = known[name]
        title, prefix = f"provider {name}", name.upper()
        url = provider.base_url or vendor.base_url
        path = _KEY_PATHS.get(name, b"/models") if url == vendor.base_url else b"/models"
        scheme = f"{vendor.auth_scheme} " if vendor.auth_scheme else ""
        credential = f"{vendor.auth_header}: {scheme}{provider.api_key}\r\n" if provider.api_key else ""
        if MESSAGES in vendor.dialects:
            # Anthropic refuses a request that does not say which version it is of.
            credential += "anthropic-version: 2023-06-01\r\n"
        try:
            answer = asyncio.run(_ask(configuration, url, path, credential.encode("latin-1", "replace")))
        except ProviderFailed:
            yield Check(title, FAILED, f"{mask_url(url)} is not an http(s) URL", f"correct {prefix}_BASE_URL")
        except WireError as error:
            advice = f"check the network, {prefix}_BASE_URL and HTTPS_PROXY"
            yield Check(title, FAILED, f"{mask_url(url)} cannot be reached: {error}", advice)
        else:
            yield _judged(title, prefix, mask_url(url), answer, has_key=provider.api_key is not None)


async def _ask(configuration: Configuration, url: str, path: bytes, credential: bytes) -> Response:
    origin, prefix = parse_base_url(url, trusted=True)
    pool = ClientPool(proxy_env=configuration.proxy_env)
    head = b"Accept: application/json\r\n" + credential
    try:
        return await pool.fetch(origin, b"GET", prefix + path, head, None, _TIMEOUTS, max_bytes=_MAX_BYTES)
    finally:
        await pool.close()


def _judged(title: str, prefix: str, url: str, answer: Response, *, has_key: bool) -> Check:
    if answer.status in (401, 403):
        if has_key:
            advice = f"set {prefix}_API_KEY to a key that is in force"
            return Check(title, FAILED, f"{url} refuses the key (status {answer.status})", advice)
        return Check(
            title, OK, f"{url} answers; no key of the instance's", f"set {prefix}_API_KEY, or add project keys"
        )
    if answer.status == 429 or answer.status >= 500:
        return Check(title, WARNING, f"{url} answers with status {answer.status}", "try again later")
    if answer.status != 200 or not _is_json(answer.body):
        detail = f"{url} is not such an API: it has no list of models (status {answer.status})"
        return Check(title, FAILED, detail, f"correct {prefix}_BASE_URL; it usually ends in /v1")
    if not has_key:
        return Check(title, OK, f"{url} answers, without a key")
    return Check(title, OK, f"{url} takes the key")


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        return False
    return True
