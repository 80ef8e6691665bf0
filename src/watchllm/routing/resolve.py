"""From a model's name to the target of a call: `provider/` first, then the model's family, then the default."""

from collections.abc import Mapping, Sequence

import msgspec

from watchllm.domain.errors import BadRequest, Forbidden, GatewayError, NotFound
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord, Vendor

SIMULATOR = "sim"
MAX_MODEL_LENGTH = 256


class InstanceCredential(msgspec.Struct, frozen=True):
    """A provider as the operator configured it for the whole instance."""

    api_key: str | None
    base_url: str | None

    def __repr__(self) -> str:
        # A repr ends in tracebacks and logs; a base URL may hold a password.
        return f"InstanceCredential(api_key={_masked(self.api_key)}, base_url={_masked(self.base_url)})"


class Target(msgspec.Struct, frozen=True):
    """Where a call goes. `own_key` is the project's provider key, None = the instance's `instance_key` (None for
    the simulated provider). `trusted` says that the operator named the base URL. `model` is the provider's name."""

    provider: str
    vendor: Vendor
    base_url: str
    model: str
    own_key: ProviderKeyRecord | None
    instance_key: str | None
    trusted: bool

    def __repr__(self) -> str:
        own = None if self.own_key is None else self.own_key.id
        return (
            f"Target(provider={self.provider!r}, model={self.model!r}, base_url={_masked(self.base_url)}, "
            f"own_key={own!r}, instance_key={_masked(self.instance_key)}, trusted={self.trusted})"
        )


def _masked(secret: str | None) -> str:
    return "***" if secret else repr(secret)


class Router:
    """Resolves model names for one snapshot's vendors and the instance's own credentials."""

    def __init__(self, vendors: Sequence[Vendor], instance: Mapping[str, InstanceCredential]) -> None:
        self._vendors = {vendor.name: vendor for vendor in vendors}
        self._families = sorted(
            ((prefix, vendor) for vendor in vendors for prefix in vendor.families), key=lambda f: -len(f[0])
        )
        self._instance = instance

    def resolve(self, model: str, project: ProjectRecord, *, test_key: bool) -> Target:
        """The target for `model`, or BadRequest, Forbidden (`model_not_allowed`, `provider_key_missing`) or NotFound
        (`model_not_found`); the error names model and provider. A test key reaches only the simulated provider,
        whatever model it names."""
        try:
            return self._resolve(model, project, test_key=test_key)
        except GatewayError as error:
            error.model = "".join(filter(str.isprintable, model[:MAX_MODEL_LENGTH]))
            raise

    def _resolve(self, model: str, project: ProjectRecord, *, test_key: bool) -> Target:
        # A model's name ends up in header lines and in paths.
        if not model or len(model) > MAX_MODEL_LENGTH or not model.isascii() or not model.isprintable():
            raise BadRequest("Name a model in the field 'model', for example gpt-4o-mini.", param="model")
        prefix, slash, rest = model.partition("/")
        named = self._vendor(prefix, project) if slash and rest else None
        provider_model = rest if named is not None else model
        if test_key:
            target = self._target(self._vendors[SIMULATOR], provider_model, project)
        elif named is not None:
            target = self._target(named, provider_model, project)
        else:
            target = self._by_name(model, project)
        if target is None:
            raise _key_missing(prefix)
        refusal = _refusal(model, target, project)
        if refusal is not None:
            raise refusal
        return target

    def default(self, project: ProjectRecord, *, test_key: bool) -> Target:
        """The target of a path that names no model: the project's default provider, else OpenAI."""
        name = SIMULATOR if test_key else project.settings.default_provider or "openai"
        vendor = self._vendor(name, project)
        target = self._target(vendor, "", project) if vendor is not None else None
        if target is None:
            raise _key_missing(name)
        allowed = project.settings.allowed_providers
        if allowed is not None and name not in allowed:
            raise Forbidden(f"This project may not use the provider {name}; ask its owner to allow it.", provider=name)
        return target

    def usable(self, project: ProjectRecord, *, test_key: bool) -> list[Target]:
        """A target without a model for every provider that this project could call now."""
        vendors = [self._vendors[SIMULATOR]]
        if not test_key:
            own = {key.provider for key in project.provider_keys} - self._vendors.keys()
            vendors = [*self._vendors.values(), *filter(None, (self._vendor(name, project) for name in sorted(own)))]
        allowed = project.settings.allowed_providers
        targets = (self._target(vendor, "", project) for vendor in vendors if allowed is None or vendor.name in allowed)
        return [target for target in targets if target is not None]

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

    def _by_name(self, model: str, project: ProjectRecord) -> Target:
        family = next((vendor for prefix, vendor in self._families if model.startswith(prefix)), None)
        if family is not None:
            target = self._target(family, model, project)
            if target is not None:
                return target
        default = project.settings.default_provider
        vendor = self._vendor(default, project) if default is not None else None
        if vendor is not None:
            target = self._target(vendor, model, project)
            if target is None:
                raise _key_missing(vendor.name)
            return target
        if family is not None:
            raise _key_missing(family.name)
        raise NotFound(
            f"No provider is known for the model {model!r}. Name it as provider/model, such as openai/{model}, "
            "or set the project's default_provider.",
            code="model_not_found",
            param="model",
        )

    def _target(self, vendor: Vendor, model: str, project: ProjectRecord) -> Target | None:
        """The vendor's target with the best credential there is; None = no credential."""
        own = min(
            (key for key in project.provider_keys if key.provider == vendor.name),
            key=lambda k: k.priority,
            default=None,
        )
        if own is not None:
            base_url = own.base_url or vendor.base_url
            if not base_url:
                return None
            return Target(vendor.name, vendor, base_url, model, own, None, trusted=own.base_url is None)
        instance = self._instance.get(vendor.name)
        if instance is not None and instance.api_key:
            base_url = instance.base_url or vendor.base_url
            return Target(vendor.name, vendor, base_url, model, None, instance.api_key, trusted=True)
        if vendor.name == SIMULATOR:
            base_url = instance.base_url if instance is not None and instance.base_url else vendor.base_url
            return Target(SIMULATOR, vendor, base_url, model, None, None, trusted=True)
        return None


def _own_vendor(name: str, key: ProviderKeyRecord) -> Vendor:
    if key.dialect == "messages":
        # As Anthropic's own clients send their key.
        return Vendor(name, key.base_url or "", auth_header="x-api-key", auth_scheme="", dialects=("messages",))
    return Vendor(name, key.base_url or "", dialects=(key.dialect or "chat",))


def _refusal(model: str, target: Target, project: ProjectRecord) -> GatewayError | None:
    settings = project.settings
    if settings.allowed_providers is not None and target.provider not in settings.allowed_providers:
        return Forbidden(
            f"This project may not use the provider {target.provider}; allowed are "
            f"{', '.join(settings.allowed_providers)}.",
            param="model",
            provider=target.provider,
        )
    if settings.allowed_models is None:
        return None
    from fnmatch import fnmatchcase  # few projects restrict models, and every start would pay for it

    names = (model, target.model, f"{target.provider}/{target.model}")
    if any(fnmatchcase(name, pattern) for pattern in settings.allowed_models for name in names):
        return None
    return Forbidden(
        f"This project may not use the model {model}; allowed are {', '.join(settings.allowed_models)}.",
        param="model",
        provider=target.provider,
    )


def _key_missing(provider: str) -> Forbidden:
    return Forbidden(
        f"There is no provider key for {provider}. Add one with `watchllm provider-key add`, set the provider's API "
        "key in the proxy's environment, or ask for a sim/ model.",
        code="provider_key_missing",
        provider=provider,
    )
