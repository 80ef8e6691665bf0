"""From a model's name to the targets of its calls.

The project's own rules come first, then `provider/`, then the model's family, then the project's default provider.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from watchllm.domain.errors import BadRequest, Forbidden, GatewayError, NotFound
from watchllm.domain.limits import Limits
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord, RouteRecord, Vendor
from watchllm.routing.route import Choice, Route, rule_for
from watchllm.routing.target import InstanceCredential, Target

__all__ = ["MAX_MODEL_LENGTH", "SIMULATOR", "InstanceCredential", "Router", "Target"]

SIMULATOR = "sim"
MAX_MODEL_LENGTH = 256
_MOST_MATCHERS = 1024


class Router:
    """Resolves model names for one snapshot's vendors and the instance's own credentials."""

    def __init__(self, vendors: Sequence[Vendor], instance: Mapping[str, InstanceCredential]) -> None:
        self._vendors = {vendor.name: vendor for vendor in vendors}
        self._families = sorted(
            ((prefix, vendor) for vendor in vendors for prefix in vendor.families), key=lambda f: -len(f[0])
        )
        self._instance = instance

    def resolve(self, model: str, project: ProjectRecord, *, test_key: bool) -> Target:
        """The first target for `model` of all that `route` gives; raises what it raises."""
        return self.route(model, project, test_key=test_key).first

    def route(self, model: str, project: ProjectRecord, *, test_key: bool) -> Route:
        """All that may answer `model`, or BadRequest, Forbidden (`model_not_allowed`, `provider_key_missing`) or
        NotFound (`model_not_found`); the error names model and provider.

        Where a rule of the project names `model`, what may not be used or has no credential is left out; when that
        leaves nothing, the first candidate's error is raised. A test key reaches only the simulated provider, whatever
        model or rule it names.
        """
        try:
            _check_name(model)
            rule = rule_for(model, project.routes) if project.routes else None
            if rule is not None:
                return self._by_rule(rule, project, test_key=test_key)
            return Route(model, (Choice(1, self._allowed(model, project, test_key=test_key), model),))
        except GatewayError as error:
            error.model = "".join(filter(str.isprintable, model[:MAX_MODEL_LENGTH]))
            raise

    def leads_to(self, model: str, project: ProjectRecord) -> str | None:
        """The provider that `model` leads to, rules and credentials left aside; None = to none that is known.

        A name with a `/` behind something that is no provider is taken for a mistyped one, not for a model of the
        project's default provider.
        """
        prefix, slash, rest = model.partition("/")
        if slash and rest and self._vendor(prefix, project) is not None:
            return prefix
        vendor = self._family(model)
        if vendor is not None or slash:
            return vendor.name if vendor is not None else None
        default = project.settings.default_provider
        return default if default is not None and self._vendor(default, project) is not None else None

    def _by_rule(self, rule: RouteRecord, project: ProjectRecord, *, test_key: bool) -> Route:
        errors: list[GatewayError] = []

        def usable(model: str) -> tuple[Target, ...]:
            try:
                return self._allowed(model, project, test_key=test_key)
            except GatewayError as error:
                errors.append(error)
                return ()

        choices = (Choice(weight, usable(model), model) for model, weight in rule.choices)
        fallbacks = (usable(model) for model in rule.fallbacks)
        route = Route(
            rule.name,
            tuple(choice for choice in choices if choice.targets),
            tuple(targets for targets in fallbacks if targets),
            rule.retries,
            rule.try_timeout,
            rule.timeout,
            rule.hedge_after,
        )
        if not route.choices and not route.fallbacks:
            raise errors[0]
        return route

    def _allowed(self, model: str, project: ProjectRecord, *, test_key: bool) -> tuple[Target, ...]:
        """The targets of a model by its own name, at least one; raises what `route` does."""
        prefix, slash, rest = model.partition("/")
        named = self._vendor(prefix, project) if slash and rest else None
        provider_model = rest if named is not None else model
        if test_key:
            targets = self._targets(self._vendors[SIMULATOR], provider_model, project)
        elif named is not None:
            targets = self._targets(named, provider_model, project)
        else:
            targets = self._by_name(model, project)
        if not targets:
            raise _key_missing(prefix)
        # They differ in their credentials only.
        refusal = _refusal(model, targets[0], project)
        if refusal is not None:
            raise refusal
        return targets

    def default(self, project: ProjectRecord, *, test_key: bool, provider: str | None = None) -> tuple[Target, ...]:
        """The targets, one a credential, of a path that names no model: `provider` where the path is peculiar to it,
        else the project's default provider, else OpenAI."""
        name = SIMULATOR if test_key else provider or project.settings.default_provider or "openai"
        vendor = self._vendor(name, project)
        targets = self._targets(vendor, "", project) if vendor is not None else ()
        if not targets:
            raise _key_missing(name)
        for whose, limits in _permissions(project):
            if (refusal := _provider_refusal(name, whose, limits)) is not None:
                raise refusal
        return targets

    def usable(self, project: ProjectRecord, *, test_key: bool) -> list[Target]:
        """A target without a model for every provider that this project could call now."""
        vendors = [self._vendors[SIMULATOR]]
        if not test_key:
            own = {key.provider for key in project.provider_keys} - self._vendors.keys()
            vendors = [*self._vendors.values(), *filter(None, (self._vendor(name, project) for name in sorted(own)))]
        targets = (self._targets(vendor, "", project) for vendor in vendors if _may_use_provider(vendor.name, project))
        return [found[0] for found in targets if found]

    def is_family_name(self, model: str, provider: str) -> bool:
        """Whether `model` alone, without `provider/`, leads to `provider`."""
        return any(model.startswith(prefix) and vendor.name == provider for prefix, vendor in self._families)

    def without_provider(self, model: str, project: ProjectRecord | None = None) -> str:
        """`model` without the prefix of a provider that is known, to `project` too: the name its answers have."""
        prefix, slash, rest = model.partition("/")
        known = prefix in self._vendors or (project is not None and self._vendor(prefix, project) is not None)
        return rest if slash and rest and known else model

    def _vendor(self, name: str, project: ProjectRecord) -> Vendor | None:
        """A known vendor, or a compatible provider of the project's own: nothing is assumed of its models."""
        vendor = self._vendors.get(name)
        if vendor is None:
            keys = (key for key in project.provider_keys if key.provider == name and key.base_url)
            own = min(keys, key=lambda key: key.priority, default=None)
            if own is not None:
                return _own_vendor(name, own)
        return vendor

    def _family(self, model: str) -> Vendor | None:
        return next((vendor for prefix, vendor in self._families if model.startswith(prefix)), None)

    def _by_name(self, model: str, project: ProjectRecord) -> tuple[Target, ...]:
        family = self._family(model)
        if family is not None:
            targets = self._targets(family, model, project)
            if targets:
                return targets
        default = project.settings.default_provider
        vendor = self._vendor(default, project) if default is not None else None
        if vendor is not None:
            targets = self._targets(vendor, model, project)
            if not targets:
                raise _key_missing(vendor.name)
            return targets
        if family is not None:
            raise _key_missing(family.name)
        prefix, slash, rest = model.partition("/")
        raise self._unknown(prefix if slash and rest else None, model, project)

    def _unknown(self, prefix: str | None, model: str, project: ProjectRecord) -> NotFound:
        """Nothing leads anywhere: neither the `prefix` in front of the model's name, None = there is none, nor a family
        nor a default provider."""
        own = {key.provider for key in project.provider_keys if key.base_url}
        known = ", ".join(sorted(self._vendors.keys() | own))
        if prefix is None:
            advice = f"Name it as provider/model, such as openai/{model}, or set the project's default_provider."
            message = f"No provider is known for the model {model!r}. {advice} Known are {known}."
        else:
            message = (
                f"No provider {prefix!r} is known, so the model {model!r} leads nowhere; known are {known}. "
                "One of your own is added with `watchllm provider-key add`. Where a provider names the model so, put "
                "that provider in front or set the project's default_provider."
            )
        return NotFound(message, code="model_not_found", param="model")

    def _targets(self, vendor: Vendor, model: str, project: ProjectRecord) -> tuple[Target, ...]:
        """The vendor's targets, one a credential: the project's own by priority, then the instance's."""
        own = sorted((key for key in project.provider_keys if key.provider == vendor.name), key=lambda k: k.priority)
        instance = self._instance.get(vendor.name)
        # Where the operator moved a provider to (a proxy of the company's), projects' own keys go, too.
        usual_url = instance.base_url if instance is not None and instance.base_url else vendor.base_url
        targets = [
            Target(
                vendor.name,
                vendor,
                key.base_url or usual_url,
                model,
                key,
                None,
                # The base URL of a provider of the project's own is the project's, whichever key it is taken from.
                trusted=key.base_url is None and vendor.name in self._vendors,
            )
            for key in own
            if key.base_url or usual_url
        ]
        if vendor.name == SIMULATOR:
            api_key = instance.api_key if instance is not None else None
            targets.append(Target(SIMULATOR, vendor, usual_url, model, None, api_key or None, trusted=True))
        elif instance is not None and instance.api_key and _instance_follows(own, project):
            targets.append(Target(vendor.name, vendor, usual_url, model, None, instance.api_key, trusted=True))
        return tuple(targets)


def _check_name(model: str) -> None:
    """Raise BadRequest for what is no model's name: it ends up in header lines and in paths."""
    if not model:
        raise BadRequest("Name a model in the field 'model', for example gpt-4o-mini.", param="model")
    if len(model) > MAX_MODEL_LENGTH:
        raise BadRequest(
            f"The model's name has {len(model)} characters; at most {MAX_MODEL_LENGTH} are taken.", param="model"
        )
    if not model.isascii() or not model.isprintable():
        raise BadRequest(
            "The model's name has characters other than printable ASCII; name it as its provider does, for example "
            "gpt-4o-mini.",
            param="model",
        )


def _instance_follows(own: list[ProviderKeyRecord], project: ProjectRecord) -> bool:
    """Whether the instance's key may be used where the project's `own` are not there or fail: who moved a provider to
    an address of their own does not want their requests at another one."""
    return project.settings.instance_keys and all(key.base_url is None for key in own)


@lru_cache(_MOST_MATCHERS)
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a name has the form of one of `patterns`. Compiling them takes some 0.1 ms each, so what was compiled
    outlives a version of the snapshot."""
    import re
    from fnmatch import translate  # few projects restrict models, and every start would pay for it

    return re.compile("|".join(map(translate, patterns))).match


def _own_vendor(name: str, key: ProviderKeyRecord) -> Vendor:
    if key.dialect == "messages":
        # As Anthropic's own clients send their key.
        return Vendor(name, key.base_url or "", auth_header="x-api-key", auth_scheme="", dialects=("messages",))
    return Vendor(name, key.base_url or "", dialects=(key.dialect or "chat",))


def _permissions(project: ProjectRecord) -> tuple[tuple[str, Limits], ...]:
    """Whose lists a request keeps to, and how they are called: those of the project, of its organization and of its
    key."""
    found: list[tuple[str, Limits]] = [("project", project.settings)]
    if project.organization is not None:
        found.append(("organization", project.organization.limits))
    if project.narrowed is not None:
        found.append(("key", project.narrowed))
    return tuple(found)


def _may_use_provider(name: str, project: ProjectRecord) -> bool:
    lists = (limits.allowed_providers for _, limits in _permissions(project))
    return all(allowed is None or name in allowed for allowed in lists)


def _provider_refusal(name: str, whose: str, limits: Limits) -> GatewayError | None:
    allowed = limits.allowed_providers
    if allowed is None or name in allowed:
        return None
    return Forbidden(
        f"This {whose} may not use the provider {name}; allowed are {', '.join(allowed)}.", param="model", provider=name
    )


def _refusal(model: str, target: Target, project: ProjectRecord) -> GatewayError | None:
    for whose, limits in _permissions(project):
        if (refusal := _provider_refusal(target.provider, whose, limits)) is not None:
            return refusal
        if limits.allowed_models is None:
            continue
        match = _matcher(limits.allowed_models)
        if not (match(model) or match(target.model) or match(f"{target.provider}/{target.model}")):
            return Forbidden(
                f"This {whose} may not use the model {model}; allowed are {', '.join(limits.allowed_models)}.",
                param="model",
                provider=target.provider,
            )
    return None


def restricts_models(project: ProjectRecord) -> bool:
    """Whether some models only may be used."""
    return any(limits.allowed_models is not None for _, limits in _permissions(project))


def _key_missing(provider: str) -> Forbidden:
    return Forbidden(
        f"There is no provider key for {provider}. Add one with `watchllm provider-key add`, set the provider's API "
        "key in the proxy's environment, or ask for a sim/ model.",
        code="provider_key_missing",
        provider=provider,
    )
