"""What a key, a project or an organization may use: the same names on all three, on the command line, in the API and in
exports."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from watchllm.domain import setting_values as form
from watchllm.domain.setting_values import HARD, parsed

_MOST = 10**12


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bounds of use; None = there is none.

    Requests and tokens of any 60 seconds, hits counting as requests; requests under way at once; calls upstream of any
    60 seconds; billable requests of a calendar month; US dollars of a day, of a month and in all. Days and months are
    those of UTC. A `budget_mode` of `alert` refuses nothing. `allowed_models` may have `*` for any characters,
    `allowed_ips` are networks in CIDR form.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    upstream_per_minute: int | None = None
    monthly_requests: int | None = None
    budget_usd_day: float | None = None
    budget_usd_month: float | None = None
    budget_usd_total: float | None = None
    budget_mode: str = HARD
    allowed_models: tuple[str, ...] | None = None
    allowed_providers: tuple[str, ...] | None = None
    allowed_ips: tuple[str, ...] | None = None

    @property
    def has_hard_budget(self) -> bool:
        """Whether spending is bounded."""
        budgets = (self.budget_usd_day, self.budget_usd_month, self.budget_usd_total)
        return self.budget_mode == HARD and any(budget is not None for budget in budgets)


LIMIT_FORMS: Mapping[str, Callable[[str], Any]] = {
    "requests_per_minute": form.whole(0, _MOST),
    "tokens_per_minute": form.whole(0, _MOST),
    "concurrent_requests": form.whole(0, _MOST),
    "upstream_per_minute": form.whole(0, _MOST),
    "monthly_requests": form.whole(0, _MOST),
    "budget_usd_day": form.usd,
    "budget_usd_month": form.usd,
    "budget_usd_total": form.usd,
    "budget_mode": form.budget_mode,
    "allowed_models": form.models,
    "allowed_providers": form.providers,
    "allowed_ips": form.networks,
}
"""How each is read from a text; raises ValueError saying what is expected."""
LISTS = frozenset(name for name, read in LIMIT_FORMS.items() if read in (form.models, form.providers, form.networks))
"""Those that are lists of texts."""


def parse_limits(pairs: Mapping[str, str]) -> dict[str, Any]:
    """Turn `name=value` texts into typed values. An empty value means: no limit of that kind.

    Raises InvalidSetting, naming the limit and the accepted form.
    """
    return {name: parsed(name, text, LIMIT_FORMS, Limits()) for name, text in pairs.items()}
