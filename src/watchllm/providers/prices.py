"""Finds a model's price among the rows of the snapshot. Unknown stays unknown: never 0."""

import re
from collections.abc import Sequence
from typing import Any

from watchllm.domain.snapshot import PriceRow
from watchllm.domain.usage import ModelPrice


def find(rows: Sequence[PriceRow], model: str, tier: str = "") -> ModelPrice | None:
    """The price of the first row that matches `model`, without regard to letter case; None = unpriced.

    `tier` is how the answer says that it was processed; one that has no price of its own costs what is usual.
    Walks all rows: who asks for every request remembers what was found.
    """
    lowered = model.lower()
    for row in rows:
        if _matches(row.match, lowered):
            return row.variants.get(tier, row.price)
    return None


def _matches(clause: Any, model: str) -> bool:
    ((kind, value),) = clause.items()
    if kind == "equals":
        return bool(model == value)
    if kind == "or":
        return any(_matches(part, model) for part in value)
    if kind == "starts_with":
        return model.startswith(value)
    if kind == "contains":
        return value in model
    if kind == "ends_with":
        return model.endswith(value)
    if kind == "and":
        return all(_matches(part, model) for part in value)
    if kind == "regex":
        # `re` keeps what it has compiled, and a name is asked for once a version.
        return re.search(value, model) is not None
    # A newer control plane may publish kinds of clauses that this proxy does not know: such a row matches nothing.
    return False
