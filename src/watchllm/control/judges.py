"""Whether a project may use the model that it names as its judge: told when it is set, not by misses afterwards."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection

from watchllm.control import records, vendors
from watchllm.control.errors import Invalid
from watchllm.domain.errors import GatewayError
from watchllm.domain.settings import REFUSE
from watchllm.domain.snapshot import PriceRow
from watchllm.providers.prices import find
from watchllm.routing.resolve import InstanceCredential, Router
from watchllm.routing.route import Route, rule_for

Prices: TypeAlias = Mapping[str, tuple[PriceRow, ...]]

_DECIDE: Final = frozenset(
    ("judge_model", "allowed_models", "allowed_providers", "default_provider", "instance_keys", "unpriced")
)
# Which keys the operator has is known to the proxies alone: here, every provider counts as one with a key.
_ANY_KEY: Final = InstanceCredential("any", None)


def check(connection: Connection, project_id: str, changes: Mapping[str, Any], prices: Callable[[], Prices]) -> None:
    """Raise Invalid where `changes`, which were applied, leave the project with a judge that it may not use, or that
    has no price where the project refuses what has none."""
    if _DECIDE.isdisjoint(changes):
        return
    record = records.without_organizations(connection, [project_id])[project_id]
    model = record.settings.judge_model
    if model is None:
        return
    known = vendors.vendors()
    router = Router(known, {vendor.name: _ANY_KEY for vendor in known})
    prefix, slash, _ = model.partition("/")
    if slash and rule_for(model, record.routes) is None and router.leads_to(model, record) is None:
        # A request may name a model of the default provider so. A judge that is mistyped would only never say yes.
        default = record.settings.default_provider
        told = "" if default is None else f". Where {default} names a model so, write {default}/{model}"
        raise Invalid(f"judge_model={model} cannot be used: no provider {prefix!r} is known{told}")
    try:
        route = router.route(model, record, test_key=False)
    except GatewayError as error:
        raise Invalid(f"judge_model={model} cannot be used: {error.message}") from None
    if record.settings.unpriced == REFUSE and not _has_price(route, prices()):
        raise Invalid(
            f"judge_model={model} cannot be used: no price is known for it, so that judge_usd_day would not bound what "
            "it costs, and this project refuses what has none. Name a model that has a price, add this one's to "
            "prices.toml, or set unpriced=allow"
        )


def _has_price(route: Route, prices: Prices) -> bool:
    """Whether any that may answer has one: a call leaves out those that have none."""
    targets = [target for choice in route.choices for target in choice.targets]
    targets += [target for fallback in route.fallbacks for target in fallback]
    return any(find(prices.get(target.provider, ()), target.model) is not None for target in targets)
