"""Finds a model's price among the rows of the snapshot. Unknown stays unknown: never 0."""

import re
from collections.abc import Sequence
from typing import Any

from watchllm.domain.snapshot import PriceRow
from watchllm.domain.usage import ModelPrice

_MEMORY = 4096
_UNSEEN = object()


def find(rows: Sequence[PriceRow], model: str) -> ModelPrice | None:
    """The price of the first row that matches `model`, without regard to letter case; None = unpriced.

    Walks all rows: for a request's path use `PriceBook`.
    """
    lowered = model.lower()
    for row in rows:
        if _matches(row.match, lowered):
            return row.price
    return None


class PriceBook:
    """One provider's rows of one snapshot version, remembering what it has found: 0.1 µs for a model seen before.

    Clients choose the names, so that the memory is bounded: when full it is emptied.
    """

    def __init__(self, rows: Sequence[PriceRow]) -> None:
        self._rows = rows
        self._found: dict[str, ModelPrice | None] = {}

    def find(self, model: str) -> ModelPrice | None:
        """As the function `find`."""
        price: Any = self._found.get(model, _UNSEEN)
        if price is _UNSEEN:
            price = find(self._rows, model)
            if len(self._found) >= _MEMORY:
                self._found.clear()
            self._found[model] = price
        known: ModelPrice | None = price
        return known


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
        # `re` keeps what it has compiled, and PriceBook asks once for a name.
        return re.search(value, model) is not None
    # A newer control plane may publish kinds of clauses that this proxy does not know: such a row matches nothing.
    return False
