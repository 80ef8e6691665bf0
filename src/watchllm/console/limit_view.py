"""What limits look like on a page: their rows and uses, and the fields of the form that changes them. Decides units and
words; the templates decide nothing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from watchllm.analytics.spent import Spent
from watchllm.console.rendering import count, usd
from watchllm.domain.limits import LIMIT_FORMS, LISTS, Limits
from watchllm.domain.money import NANOS_PER_USD
from watchllm.domain.setting_values import ALERT, HARD, text_of

NOTHING = "–"

MEANINGS: Mapping[str, str] = {
    "requests_per_minute": "requests of any 60 s, hits included",
    "tokens_per_minute": "tokens that are bought in any 60 s",
    "concurrent_requests": "requests under way at once",
    "upstream_per_minute": "calls to providers in any 60 s",
    "monthly_requests": "billable requests of a calendar month (UTC)",
    "budget_usd_day": "US dollars a day (UTC)",
    "budget_usd_month": "US dollars a calendar month (UTC)",
    "budget_usd_total": "US dollars in all",
    "budget_mode": "whether a spent budget refuses, or is only counted",
    "allowed_models": "names separated by commas; * stands for any characters",
    "allowed_providers": "names separated by commas",
    "allowed_ips": "addresses or networks separated by commas",
}
"""What each limit bounds, in a few words."""

_COUNTED = (
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "upstream_per_minute",
    "monthly_requests",
)


@dataclass(frozen=True, slots=True)
class Use:
    """What was used of a bound, both as texts; `share` of it, 0 to 1, None = there is no bound. `only_alerts`: beyond
    it nothing is refused."""

    used: str
    bound: str
    share: float | None
    only_alerts: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose limits are in one column. `of_plan`: the names of those that its plan gives, and `plan` that plan."""

    title: str
    limits: Limits
    plan: str = ""
    of_plan: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Row:
    """One limit: a cell for each holder, and its use by the first of them, None where none is kept."""

    name: str
    meaning: str
    cells: Sequence[str]
    use: Use | None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the form. `choices` empty: anything may be written; `long`: in several lines; `fixed`: nothing, it is
    shown as it is."""

    name: str
    meaning: str
    value: str
    choices: Sequence[str] = ()
    long: bool = False
    fixed: bool = False


def rows(holders: Sequence[Holder], spent: Spent) -> list[Row]:
    """All limits; those of each holder have to be kept to, whichever is the tightest."""
    uses = uses_of(holders[0].limits, spent)
    return [
        Row(name, meaning, [_cell(holder, name) for holder in holders], uses.get(name))
        for name, meaning in MEANINGS.items()
    ]


def uses_of(limits: Limits, spent: Spent) -> dict[str, Use]:
    """The uses that are kept: of the month's requests and of the budgets, by the limits' names."""
    alerts = limits.budget_mode == ALERT

    def budget(nanos: int, bound: float | None) -> Use:
        return _use(nanos / NANOS_PER_USD, bound, usd, only_alerts=alerts)

    return {
        "monthly_requests": _use(spent.requests_month, limits.monthly_requests, count),
        "budget_usd_day": budget(spent.nanos_day, limits.budget_usd_day),
        "budget_usd_month": budget(spent.nanos_month, limits.budget_usd_month),
        "budget_usd_total": budget(spent.nanos_total, limits.budget_usd_total),
    }


def shown(limits: Limits, name: str) -> str:
    """The value of one limit for people."""
    value = getattr(limits, name)
    if value is None:
        return NOTHING
    if name in _COUNTED:
        return count(value)
    return usd(value) if name.startswith("budget_usd_") else text_of(value).replace(",", ", ")


def fields(limits: Limits, typed: Mapping[str, str]) -> list[Field]:
    """The fields of the form, with what was `typed` where something was."""
    return [
        Field(
            name,
            MEANINGS[name],
            typed.get(name, text_of(getattr(limits, name))),
            (HARD, ALERT) if name == "budget_mode" else (),
            name in LISTS,
        )
        for name in LIMIT_FORMS
    ]


def state_of(values: Mapping[str, Any]) -> str:
    """A short mark of these values, by which a form knows that they have changed since it was shown."""
    return hashlib.sha256(msgspec.json.encode(values, order="sorted")).hexdigest()[:32]


def changed(values: Mapping[str, Any], typed: Mapping[str, str]) -> dict[str, str]:
    """Of what was typed, what is not as it was. The lines of a list count as separated by commas."""
    plain = {name: ",".join(typed[name].strip().splitlines()) for name in values if name in typed}
    return {name: text for name, text in plain.items() if text != text_of(values[name])}


def _cell(holder: Holder, name: str) -> str:
    text = shown(holder.limits, name)
    return f"{text} (plan {holder.plan})" if name in holder.of_plan and text != NOTHING else text


def _use(used: Any, bound: Any, written: Any, *, only_alerts: bool = False) -> Use:
    if bound is None:
        return Use(written(used), "", None)
    return Use(written(used), written(bound), min(1.0, used / bound) if bound else 1.0, only_alerts)
