"""Reads plans: `plans.toml` beside this module, with the operator's `WATCHLLM_HOME/plans.toml` on top.

[team]
title = "Team"
tier = "pro"                  # how requests that have to wait are served: enterprise, pro, starter, free
price_usd_month = 199
monthly_requests = 5_000_000
requests_per_minute = 600
overage_usd_per_1000 = 0.10   # what requests beyond the monthly ones cost
overage_cap_usd = 100         # and for how much a month they are served, unless the organization has its own cap
log_days = 90
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from watchllm.control.errors import PlansUnusable
from watchllm.domain.limits import Limits
from watchllm.limits.tiers import TIERS_BY_NAME

FILE_NAME = "plans.toml"
SELF_HOSTED = "self-hosted"
_MOST = 10**12


class Plan(Limits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an organization may use and what it pays for that; None = no such bound, or no such price."""

    title: str = ""
    tier: str = SELF_HOSTED
    price_usd_month: float = 0.0
    overage_usd_per_1000: float | None = None
    overage_cap_usd: float = 0.0
    log_days: int | None = None

    def overage_requests(self, cap_usd: float | None) -> int:
        """How many requests beyond the monthly ones are served for at most `cap_usd`, None = the plan's own cap."""
        cap = self.overage_cap_usd if cap_usd is None else cap_usd
        if not self.overage_usd_per_1000:
            return 0
        return min(int(round(cap / self.overage_usd_per_1000 * 1000, 6)), _MOST)


def plans(home: Path) -> dict[str, Plan]:
    """All plans by name, in the order of the files. Raises PlansUnusable for an operator's file of the wrong form."""
    rows: dict[str, dict[str, Any]] = tomllib.loads(files("watchllm.control").joinpath(FILE_NAME).read_text("utf-8"))
    path = home / FILE_NAME
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlansUnusable(f"{path} cannot be read: {error}") from None
    for name, row in own.items():
        if not isinstance(row, dict):
            raise PlansUnusable(f"{path}: {name} is no table; write [{name}] and its fields below it")
        rows[name] = rows.get(name, {}) | row
    return {name: _plan(name, row, path) for name, row in rows.items()}


def _plan(name: str, row: dict[str, Any], path: Path) -> Plan:
    try:
        plan = msgspec.convert({"title": name, **row}, Plan)
    except msgspec.ValidationError as error:
        text = str(error).replace(" - at `$.", " - at `")
        raise PlansUnusable(f"{path}: [{name}]: {text}; docs/guides/limits.md has its fields") from None
    if plan.tier not in TIERS_BY_NAME:
        raise PlansUnusable(
            f"{path}: the plan {name!r} has the tier {plan.tier!r}; tiers are {', '.join(TIERS_BY_NAME)}"
        )
    numbers = (value for value in msgspec.structs.astuple(plan) if isinstance(value, int | float))
    if any(not 0 <= number <= _MOST for number in numbers):
        raise PlansUnusable(f"{path}: the plan {name!r} has a number below 0 or above {_MOST}")
    return plan
