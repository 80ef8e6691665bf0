"""Whether a project may use the model that it names as its judge: told when it is set, not by misses afterwards."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection

from watchllm.control import records, vendors
from watchllm.control.errors import Invalid
from watchllm.domain.errors import GatewayError
from watchllm.routing.resolve import InstanceCredential, Router

_DECIDE: Final = frozenset(("judge_model", "allowed_models", "allowed_providers", "default_provider", "instance_keys"))
# Which keys the operator has is known to the proxies alone: here, every provider counts as one with a key.
_ANY_KEY: Final = InstanceCredential("any", None)


def check(connection: Connection, project_id: str, changes: Mapping[str, Any]) -> None:
    """Raise Invalid where `changes`, which were applied, leave the project with a judge that it may not use."""
    if _DECIDE.isdisjoint(changes):
        return
    record = records.published(connection, {}, [project_id])[project_id]
    model = record.settings.judge_model
    if model is None:
        return
    known = vendors.vendors()
    router = Router(known, {vendor.name: _ANY_KEY for vendor in known})
    try:
        router.route(model, record, test_key=False)
    except GatewayError as error:
        raise Invalid(f"judge_model={model} cannot be used: {error.message}") from None
