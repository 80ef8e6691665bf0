"""Where one call goes: a provider's model, the address it is reached at, and the credential that opens it."""

import msgspec

from watchllm.domain.snapshot import ProviderKeyRecord, Vendor

INSTANCE_KEY = "instance"
"""The label of the operator's own key of a provider."""


class InstanceCredential(msgspec.Struct, frozen=True):
    """A provider as the operator configured it for the whole instance."""

    api_key: str | None
    base_url: str | None

    def __repr__(self) -> str:
        # A repr ends in tracebacks and logs; a base URL may hold a password.
        return f"InstanceCredential(api_key={masked(self.api_key)}, base_url={masked(self.base_url)})"


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

    @property
    def key_id(self) -> str | None:
        """The id of the project's provider key, None = the instance's: what `Attempt.key_id` is."""
        return None if self.own_key is None else self.own_key.id

    @property
    def key_label(self) -> str:
        """What logs and circuit breakers call the credential: the key's id or `instance`; never a secret."""
        return INSTANCE_KEY if self.own_key is None else self.own_key.id

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Provider, base URL, model and key's label: two targets with the same are one."""
        return self.provider, self.base_url, self.model, self.key_label

    def __repr__(self) -> str:
        return (
            f"Target(provider={self.provider!r}, model={self.model!r}, base_url={masked(self.base_url)}, "
            f"own_key={self.key_id!r}, instance_key={masked(self.instance_key)}, trusted={self.trusted})"
        )


def masked(secret: str | None) -> str:
    """How a repr shows that there is a secret."""
    return "***" if secret else repr(secret)
