"""`model_list`: each deployment becomes a model of one of our providers, and the key that opens it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from watchllm.control.litellm.plan import PlannedKey, Section
from watchllm.control.litellm.providers import NAMES, VARIABLES, Places, base_url
from watchllm.control.provider_keys import NO_KEY
from watchllm.domain.snapshot import Vendor
from watchllm.providers.dialect import MESSAGES

_REFERENCE = "os.environ/"
_NO_LIMITS = "limits of a deployment are not in this version"
_NO_PARAMETER = "what is added to each request is not in this version: send it with the request"


class Deployment(msgspec.Struct, frozen=True):
    """One entry of a group. `model` is `provider/model` of ours; a lower `order` is tried first. `share` is what it is
    chosen by: a weight, else requests or tokens a minute; None where the file gives none."""

    model: str
    path: str
    order: float = 1
    weight: float | None = None
    rpm: float | None = None
    tpm: float | None = None
    timeout: float | None = None
    retries: float | None = None


class Deployments:
    """Reads deployments one by one; `groups` and `keys` hold what was found so far, in the order of the file."""

    def __init__(
        self,
        vendors: Mapping[str, Vendor],
        variables: Mapping[str, str],
        places: Places,
        credentials: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._vendors = vendors
        self._families = sorted(
            ((prefix, vendor) for vendor in vendors.values() for prefix in vendor.families), key=lambda f: -len(f[0])
        )
        self._variables = variables
        self._places = places
        self._credentials = credentials
        self.groups: dict[str, list[Deployment]] = {}
        self.keys: dict[tuple[str, str | None, str | None, str | None], PlannedKey] = {}

    def read(self, entry: Section) -> None:
        """Take one entry of `model_list` in; what cannot be brought over is reported. Raises Invalid."""
        group = entry.text("model_name")
        parameters = entry.section("litellm_params")
        self._fill_in(parameters)
        named = parameters.text("model")
        if group is None or named is None:
            where = parameters.at("model") if group is not None else entry.at("model_name")
            entry.report(where, "a deployment has a model_name and a litellm_params.model; this one is left out")
            return
        found = self._vendor(named, parameters)
        if found is None:
            return
        vendor, model = found
        if "*" in group or "*" in model:
            entry.skip(
                "model_name",
                f"names with * need no route: every model is asked for as {vendor.name}/MODEL, and those without a "
                f"provider go to the project's default_provider; keys of this entry are brought over",
            )
        provider = self._provider(vendor, parameters)
        if provider is None:
            return
        deployment = _deployment(f"{provider}/{model}", entry, parameters)
        if "*" not in group and "*" not in model:
            self.groups.setdefault(group, []).append(deployment)

    def model(self, name: str) -> str | None:
        """A model that is named outside of `model_list`, as ours; None where its provider is none that we know."""
        prefix, _, rest = name.partition("/")
        if rest and prefix in NAMES:
            return f"{NAMES[prefix]}/{rest}"
        vendor = self._family(name)
        return f"{vendor.name}/{name}" if vendor is not None else None

    def _fill_in(self, parameters: Section) -> None:
        name = parameters.text("litellm_credential_name")
        if name is not None and name in self._credentials:
            parameters.fill_in(self._credentials[name])
        elif name is not None:
            parameters.skip("litellm_credential_name", "credential_list has no such credential")

    def _family(self, model: str) -> Vendor | None:
        return next((vendor for prefix, vendor in self._families if model.startswith(prefix)), None)

    def _vendor(self, named: str, parameters: Section) -> tuple[Vendor, str] | None:
        custom = parameters.text("custom_llm_provider")
        prefix, slash, rest = named.partition("/")
        if custom is not None:
            prefix, rest = custom, rest if slash and prefix == custom else named
        elif not slash:
            vendor = self._family(named)
            if vendor is not None:
                return vendor, named
            parameters.skip("model", f"it is not known whose model {named} is: name it as provider/model")
            return None
        if prefix not in NAMES or not rest:
            parameters.skip("model", f"the provider {prefix!r} is none that this version knows")
            return None
        return self._vendors[NAMES[prefix]], rest

    def _provider(self, vendor: Vendor, parameters: Section) -> str | None:
        """The provider's name, its key noted; None where the deployment has to be left out."""
        field = "api_base" if parameters.raw("api_base") is not None else "base_url"
        given = parameters.text(field)
        url = None
        if given is not None:
            place = self._resolved(given)
            if place is None:
                parameters.skip(field, f"the variable {_variable(given)} is not set here; the deployment is left out")
                return None
            url = base_url(vendor, place)
        elif vendor.needs_base_url:
            parameters.report(parameters.at("api_base"), f"{vendor.name} needs one; the deployment is left out")
            return None
        provider = self._places.provider(vendor, url)
        key = self._key(provider, vendor, url, parameters)
        if provider not in self._vendors and key.secret is None:
            parameters.skip("api_key", f"the variable {key.variable} is not set here; the deployment is left out")
            return None
        self.keys.setdefault((provider, url, key.secret, key.variable), key)
        return provider

    def _key(self, provider: str, vendor: Vendor, url: str | None, parameters: Section) -> PlannedKey:
        given = parameters.text("api_key")
        # LiteLLM would send OpenAI's key to whatever answers at another address; a key goes only where it belongs.
        if given is None and vendor.name in VARIABLES and (url is None or vendor.needs_base_url):
            given = _REFERENCE + VARIABLES[vendor.name]
        secret = NO_KEY if given is None else self._resolved(given)
        variable = _variable(given) if given is not None else None
        dialect = MESSAGES if provider not in self._vendors and vendor.dialects == (MESSAGES,) else None
        return PlannedKey(provider, url, dialect, secret, variable, parameters.at("api_key"))

    def _resolved(self, text: str) -> str | None:
        variable = _variable(text)
        return text if variable is None else self._variables.get(variable) or None


def _variable(text: str) -> str | None:
    return text.removeprefix(_REFERENCE) if text.startswith(_REFERENCE) else None


def _deployment(model: str, entry: Section, parameters: Section) -> Deployment:
    limits = {}
    for name in ("rpm", "tpm"):
        limits[name] = parameters.number(name) or entry.number(name)
        for section in (parameters, entry):
            section.skip(name, f"{_NO_LIMITS}; where a group has no weights, it counts as one")
    deployment = Deployment(
        model,
        entry.path,
        order=parameters.number("order") or 1,
        weight=parameters.number("weight"),
        timeout=parameters.number("timeout"),
        retries=parameters.number("num_retries"),
        **limits,
    )
    parameters.skip("max_parallel_requests", _NO_LIMITS)
    parameters.skip("stream_timeout", "one bound holds for streams and others: timeout")
    parameters.skip("max_retries", "tries are counted once, by num_retries")
    parameters.skip("api_version", "not needed: Azure's v1 API is used, which has none")
    parameters.skip("organization", "not in this version: a key belongs to an organization by itself")
    for name in ("input_cost_per_token", "output_cost_per_token"):
        parameters.skip(name, "prices of your own belong into WATCHLLM_HOME/prices.toml")
    parameters.skip_rest(_NO_PARAMETER)
    entry.skip("model_info", "prices of your own belong into WATCHLLM_HOME/prices.toml; the rest is for LiteLLM only")
    entry.skip_rest("has no counterpart here")
    return deployment
