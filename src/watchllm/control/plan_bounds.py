"""What an organization's own people may change of it: what its plan bounds may be bounded tighter, not wider. The plan
itself, and what is paid beyond it, are for whoever runs the installation to set; nothing of this holds for the plan
`self-hosted`, which is theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_network
from typing import Any

from watchllm.control.errors import BeyondPlan, PlansUnusable
from watchllm.control.organizations import Organization
from watchllm.control.plans import FILE_NAME, SELF_HOSTED, Plan
from watchllm.domain.limits import LIMIT_FORMS
from watchllm.domain.setting_values import ALERT, ALLOW, text_of
from watchllm.domain.settings import ProjectSettings

_ASSUMED = ProjectSettings().assumed_output_tokens


def check(organization: Organization, changes: Mapping[str, Any], plans: Mapping[str, Plan]) -> None:
    """Raise BeyondPlan where `changes`, as `organizations.parse_changes` gave them, are not for the organization's own
    people to make, and PlansUnusable where its plan is not known."""
    if organization.plan == SELF_HOSTED:
        return
    for name in changes:
        if name not in LIMIT_FORMS:
            raise BeyondPlan(name, f"{name} is set by whoever runs this installation, not by the organization itself")
    plan = _plan_of(organization, plans)
    for name, value in changes.items():
        if _is_wider(name, value, plan):
            raise BeyondPlan(
                name,
                f"{name}={text_of(value)[:200]} is more than the plan {organization.plan} gives, which is "
                f"{text_of(getattr(plan, name))[:200]}; a limit of a plan can be made tighter here, not wider",
            )


def check_project(
    organization: Organization, changes: Mapping[str, Any], plans: Callable[[], Mapping[str, Plan]]
) -> None:
    """The same of `changes` of one of its projects, as `domain.settings.parse_settings` gave them: what walks past the
    plan's limits. What costs nobody knows how much is used beside its budget, and an answer for which little is
    assumed beside what was reserved of it."""
    assumed = changes.get("assumed_output_tokens", _ASSUMED)
    is_allowed = changes.get("unpriced") == ALLOW
    is_less = assumed < _ASSUMED
    if organization.plan == SELF_HOSTED or not (is_allowed or is_less):
        return
    plan = _plan_of(organization, plans())
    if is_allowed and plan.has_hard_budget:
        raise BeyondPlan(
            "unpriced",
            f"unpriced={ALLOW} is set by whoever runs this installation: the plan {organization.plan} has a budget, "
            "which what has no price would not count against",
        )
    if is_less and (plan.has_hard_budget or plan.tokens_per_minute is not None):
        raise BeyondPlan(
            "assumed_output_tokens",
            f"assumed_output_tokens={assumed} is less than the {_ASSUMED} that are "
            f"reserved of the limits of the plan {organization.plan} for an answer without a bound; more may be set",
        )


def _plan_of(organization: Organization, plans: Mapping[str, Plan]) -> Plan:
    plan = plans.get(organization.plan)
    if plan is None:
        raise PlansUnusable(f"{FILE_NAME} has no plan {organization.plan!r} any more, which {organization.id} has")
    return plan


def _is_wider(name: str, value: Any, plan: Plan) -> bool:
    if name == "budget_mode":
        return value == ALERT and plan.has_hard_budget
    bound = getattr(plan, name)
    # Without a value of its own the plan's holds.
    if value is None or bound is None:
        return False
    if isinstance(bound, tuple):
        return not all(_COVERED[name](one, bound) for one in value)
    return bool(value > bound)


def _is_model_covered(name: str, patterns: Sequence[str]) -> bool:
    """Whether all that `name`, which may be a pattern itself, stands for is what one of `patterns` stands for; False
    where it would take more than a look."""
    if name in patterns:
        return True
    if "[" in name:
        return False
    # A star of a pattern takes whatever stands there, marks of a pattern included; its other marks take one letter.
    is_plain = not {"*", "?"} & set(name)
    return any(fnmatchcase(name, each) for each in patterns if is_plain or not {"?", "["} & set(each))


def _is_network_covered(network: str, networks: Sequence[str]) -> bool:
    own = ip_network(network)
    return any(own.version == each.version and own.subnet_of(each) for each in map(ip_network, networks))  # type: ignore[arg-type]


_COVERED: Mapping[str, Callable[[str, Sequence[str]], bool]] = {
    "allowed_models": _is_model_covered,
    "allowed_providers": lambda name, names: name in names,
    "allowed_ips": _is_network_covered,
}
