"""`router_settings` and `litellm_settings`: groups of deployments, their fallbacks and bounds, become routes."""

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Any

from watchllm.control.litellm.deployments import Deployment, Deployments
from watchllm.control.litellm.plan import PlannedRoute, Section
from watchllm.control.routes import MAX_CHOICES, MAX_FALLBACKS, MAX_RETRIES, MAX_SECONDS, MAX_WEIGHT, MIN_SECONDS
from watchllm.domain.snapshot import RouteRecord

_ANY_GROUP = "*"
_OTHER_FALLBACKS = {
    "context_window_fallbacks": "falling back for a prompt that is too long is not in this version: an answer 400 is "
    "passed on; name a model with a longer context",
    "content_policy_fallbacks": "falling back after a refusal is not in this version: a refusal is an answer",
}


class Rules:
    """Builds the routes from what was read before, `deployments`, and the two sections that say how to use them."""

    def __init__(self, deployments: Deployments, router: Section, settings: Section) -> None:
        self._deployments = deployments
        self._groups = deployments.groups
        self._router = router
        self._settings = settings
        self._aliases = self._read_aliases()
        self._fallbacks: dict[str, tuple[list[str], str]] = {}
        self.unchanged: list[str] = []

    def routes(self) -> list[PlannedRoute]:
        """A route for each group, and for each other name of one. Raises Invalid for wrong types."""
        self._read_fallbacks()
        retries = self._retries()
        timeout = self._seconds(self._settings, "request_timeout")
        timeout = self._seconds(self._router, "timeout") or timeout
        names = {name: (name, members[0].path) for name, members in self._groups.items()} | self._aliases
        found = []
        for name, (group, path) in names.items():
            route = PlannedRoute(self._route(name, group, path, retries, timeout), path)
            if self._is_plain(route.rule):
                self.unchanged.append(name)
            elif route.rule.choices:
                found.append(route)
        return found

    def _route(self, name: str, group: str, path: str, retries: int, timeout: float | None) -> RouteRecord:
        members = self._groups[group]
        first, later = _by_order(members)
        weights = _weights(first)
        choices = [model for model, weight in weights.items() if weight]
        # LiteLLM chooses those of no weight only when the others are out of service.
        rest = [*(model for model, weight in weights.items() if not weight), *(member.model for member in later)]
        if not choices:
            choices, weights, rest = rest[:1], dict.fromkeys(rest[:1], 1), rest[1:]
        report = self._router.report
        if len(choices) > MAX_CHOICES:
            report(path, f"of the group's models only {MAX_CHOICES} can be chosen from; the others are left out")
        others = dict.fromkeys([*rest, *self._fallback_models(name, group)])
        fallbacks = [model for model in others if model not in choices]
        if len(fallbacks) > MAX_FALLBACKS:
            report(path, f"only {MAX_FALLBACKS} fallbacks are kept; left out: {', '.join(fallbacks[MAX_FALLBACKS:])}")
        own_retries = [int(member.retries) for member in members if member.retries is not None]
        own_timeouts = [member.timeout for member in members if member.timeout]
        return RouteRecord(
            name,
            tuple((model, weights[model]) for model in choices[:MAX_CHOICES]),
            tuple(fallbacks[:MAX_FALLBACKS]),
            retries=min(max(own_retries, default=retries), MAX_RETRIES),
            try_timeout=_bounded(max(own_timeouts)) if own_timeouts else timeout,
        )

    def _is_plain(self, rule: RouteRecord) -> bool:
        """Whether the name leads to the one model without a rule."""
        if len(rule.choices) != 1 or rule.fallbacks or rule.retries or rule.try_timeout is not None:
            return False
        ((model, _),) = rule.choices
        return model in (rule.name, self._deployments.model(rule.name))

    def _read_aliases(self) -> dict[str, tuple[str, str]]:
        """The group that each alias stands for, and the alias's place in the file."""
        aliases = self._router.section("model_group_alias")
        found = {}
        for name in aliases.names():
            target = aliases.raw(name)
            group = target.get("model") if isinstance(target, dict) else target
            if not isinstance(group, str) or group not in self._groups:
                aliases.skip(name, "it leads to no group that is brought over")
            elif name in self._groups:
                aliases.skip(name, "a group has this name, and holds")
            else:
                found[name] = group, aliases.at(name)
        return found

    def _read_fallbacks(self) -> None:
        for section in (self._settings, self._router):
            for index, entry in enumerate(section.sequence("fallbacks")):
                chain = Section(entry, f"{section.at('fallbacks')}[{index}]", section.report)
                for group in chain.names():
                    self._fallbacks[group] = _names(chain.sequence(group), chain.at(group), section), chain.at(group)
            default = section.sequence("default_fallbacks")
            if default:
                path = section.at("default_fallbacks")
                self._fallbacks[_ANY_GROUP] = _names(default, path, section), path
            for name, reason in _OTHER_FALLBACKS.items():
                section.skip(name, reason)
        for group, (_, path) in self._fallbacks.items():
            if group not in self._groups and group not in self._aliases and group != _ANY_GROUP:
                self._router.report(path, f"no group named {group!r} is brought over")
        for names, path in self._fallbacks.values():
            for name in names:
                if self._group(name) not in self._groups and self._deployments.model(name) is None:
                    self._router.report(path, f"{name} is no group that is brought over, and no model that is known")

    def _group(self, name: str) -> str:
        return self._aliases[name][0] if name in self._aliases else name

    def _fallback_models(self, *groups: str) -> list[str]:
        """The models of the groups that the first of `groups` with fallbacks has: routes do not lead to routes."""
        chains = (self._fallbacks.get(group) for group in (*groups, _ANY_GROUP))
        names, _ = next(filter(None, chains), ([], ""))
        models: list[str] = []
        for name in map(self._group, names):
            if name in self._groups:
                first, later = _by_order(self._groups[name])
                weights = _weights(first)
                models += sorted(weights, key=lambda model: -weights[model])
                models += [member.model for member in later]
            else:
                models += filter(None, [self._deployments.model(name)])
        return models

    def _retries(self) -> int:
        ours, theirs = self._router.number("num_retries"), self._settings.number("num_retries")
        wanted = int(ours if ours is not None else theirs or 0)
        if wanted > MAX_RETRIES:
            section = self._router if ours is not None else self._settings
            section.skip("num_retries", f"at most {MAX_RETRIES} further tries are made")
        return min(wanted, MAX_RETRIES)

    def _seconds(self, section: Section, name: str) -> float | None:
        seconds = section.number(name)
        if not seconds:
            return None
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            section.skip(name, f"a try is bounded by {MIN_SECONDS} to {MAX_SECONDS:g} seconds")
        return _bounded(seconds)


def _bounded(seconds: float) -> float:
    return min(max(seconds, MIN_SECONDS), MAX_SECONDS)


def _names(values: Sequence[Any], path: str, section: Section) -> list[str]:
    names = []
    for value in values:
        if isinstance(value, str):
            names.append(value)
        else:
            section.report(path, "a fallback with parameters of its own is not in this version")
    return names


def _by_order(members: Sequence[Deployment]) -> tuple[list[Deployment], list[Deployment]]:
    """Those that are tried first, and the others in the order they come after them."""
    lowest = min(member.order for member in members)
    later = sorted((member for member in members if member.order > lowest), key=lambda member: member.order)
    return [member for member in members if member.order == lowest], later


def _weights(members: Sequence[Deployment]) -> Mapping[str, int]:
    """Weights from 0 to 1000 by model, as LiteLLM's simple shuffle has them: by weight, else by requests a minute, else
    by tokens a minute, where one of the group has that; else all alike."""
    shares: dict[str, float] = dict.fromkeys((member.model for member in members), 0.0)
    for field in ("weight", "rpm", "tpm"):
        if any(getattr(member, field) is not None for member in members):
            for member in members:
                shares[member.model] += getattr(member, field) or 0.0
            break
    else:
        for member in members:
            shares[member.model] += 1
    largest = max(shares.values())
    if all(share.is_integer() for share in shares.values()):
        common = gcd(*map(int, shares.values())) or 1
        if largest / common <= MAX_WEIGHT:
            return {model: int(share) // common for model, share in shares.items()}
    return {model: max(1, round(share / largest * MAX_WEIGHT)) if share else 0 for model, share in shares.items()}
