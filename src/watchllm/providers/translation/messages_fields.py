"""Reads the fields of a Messages request strictly: a wrong type, or what has no counterpart, is refused by its name."""

from collections.abc import Collection
from typing import Any

from watchllm.domain.errors import BadRequest
from watchllm.providers.translation.reading import Loss, list_of, object_of, refusal


def no_counterpart(field: str) -> BadRequest:
    """The refusal of a field that chat completions cannot express."""
    return refusal(
        field,
        "has no counterpart in chat completions, which this model's provider speaks. Leave it out, or choose a model "
        "whose provider speaks the Messages API.",
    )


def objects(value: Any, field: str) -> list[dict[str, Any]]:
    """`value`, which must be an array of objects. Raises BadRequest."""
    return [object_of(item, f"{field}[{at}]") for at, item in enumerate(list_of(value, field))]


def only(holder: dict[str, Any], known: Collection[str], field: str) -> None:
    """Raises BadRequest for a member that is not `known` here. Null counts as left out."""
    for name, value in holder.items():
        if name not in known and value is not None:
            raise no_counterpart(f"{field}.{name}")


def take_cache_control(holder: dict[str, Any], place: str, loss: Loss) -> None:
    """Note that a marker for the provider's prompt cache is not taken along: it changes a price, never an answer."""
    if holder.get("cache_control") is not None:
        loss.drop(f"{place}.cache_control")
