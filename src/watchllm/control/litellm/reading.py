"""From the text of a LiteLLM configuration to a plan."""

from collections.abc import Collection, Mapping
from typing import Any

from watchllm.control.litellm import document
from watchllm.control.litellm.deployments import Deployments
from watchllm.control.litellm.plan import Plan, Section, Skipped
from watchllm.control.litellm.providers import Places
from watchllm.control.litellm.rules import Rules
from watchllm.domain.snapshot import Vendor

_ROUTER = {
    "allowed_fails": "each provider and key has a circuit breaker of its own, which needs no settings",
    "cooldown_time": "each provider and key has a circuit breaker of its own, which needs no settings",
    "retry_policy": "one number of further tries holds for all kinds of failures: num_retries",
    "retry_after": "back-off is exponential with full jitter, and honours Retry-After",
    "redis_host": "this gateway has its own stores",
    "redis_port": "this gateway has its own stores",
    "redis_password": "this gateway has its own stores; the password is not read",
    "redis_url": "this gateway has its own stores; the URL is not read",
}
_SETTINGS = {
    "cache": "the cache is on for every project; `watchllm project set ID cache=off` turns it off",
    "cache_params": "the cache is the gateway's own; `watchllm project set ID cache_ttl=SECONDS` bounds its age",
    "drop_params": "what a provider has no counterpart for is refused, or dropped where that is safe and then named in "
    "the header X-WatchLLM-Dropped",
    "success_callback": "usage is recorded by itself: `watchllm usage export`",
    "failure_callback": "usage is recorded by itself: `watchllm usage export`",
    "callbacks": "usage is recorded by itself: `watchllm usage export`",
    "set_verbose": "is for LiteLLM only",
}
_GENERAL = {
    "master_key": "never brought over: `watchllm key create --project ID` makes a key of its own for each client",
    "database_url": "this gateway has a database of its own; the URL is not read",
}
_TOP = {
    "include": "other files are not read: import them one by one",
    "guardrails": "not in this version",
    "mcp_servers": "not in this version",
}
# LiteLLM's own default.
_BY_WEIGHT = "simple-shuffle"
_NONE = "has no counterpart here"


def read(
    text: str,
    variables: Mapping[str, str],
    vendors: Mapping[str, Vendor],
    existing: Mapping[str, Collection[str | None]],
) -> Plan:
    """What bringing `text` over amounts to. `variables` are the environment that keys are referred to in, `existing`
    the base URLs of the project's provider keys by provider.

    Raises Invalid, which names the place, for what is no LiteLLM configuration.
    """
    skipped: dict[Skipped, None] = {}

    def skip(path: str, reason: str) -> None:
        skipped.setdefault(Skipped(path, reason))

    top = Section(document.parse(text), "", skip)
    variables = {**_texts(top.section("environment_variables")), **variables}
    deployments = Deployments(vendors, variables, Places(vendors, existing), _credentials(top))
    for index, entry in enumerate(top.sequence("model_list")):
        deployments.read(Section(entry, f"model_list[{index}]", skip))
    router, settings = top.section("router_settings"), top.section("litellm_settings")
    rules = Rules(deployments, router, settings)
    routes = rules.routes()
    if router.raw("routing_strategy") not in (None, _BY_WEIGHT):
        router.skip("routing_strategy", "models are chosen by weight; other strategies are not in this version")
    _skip(router, _ROUTER)
    _skip(settings, _SETTINGS)
    _skip(top.section("general_settings"), _GENERAL)
    _skip(top, _TOP)
    return Plan(tuple(deployments.keys.values()), tuple(routes), tuple(rules.unchanged), tuple(skipped))


def _skip(section: Section, reasons: Mapping[str, str]) -> None:
    for name, reason in reasons.items():
        section.skip(name, reason)
    section.skip_rest(_NONE)


def _texts(section: Section) -> dict[str, str]:
    return {name: text for name in section.names() if (text := section.text(name)) is not None}


def _credentials(top: Section) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for index, entry in enumerate(top.sequence("credential_list")):
        credential = Section(entry, f"credential_list[{index}]", top.report)
        name = credential.text("credential_name")
        if name is not None:
            found[name] = _texts(credential.section("credential_values"))
    return found
