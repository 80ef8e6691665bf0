"""What of the configuration the parts of a proxy process are given, in their own words. Import-light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchllm.configuration import Configuration
from watchllm.routing.resolve import InstanceCredential
from watchllm.wire.server import ServerLimits

if TYPE_CHECKING:
    import ssl


def server_limits(configuration: Configuration) -> ServerLimits:
    """The wire's bounds as configured."""
    return ServerLimits(
        max_head_bytes=configuration.max_header_bytes,
        max_body_bytes=configuration.max_body_bytes,
        max_inflight_bytes=configuration.max_inflight_bytes,
        max_connections=configuration.max_connections,
        header_timeout=configuration.header_timeout,
        idle_timeout=configuration.idle_timeout,
    )


def instance_credentials(configuration: Configuration) -> dict[str, InstanceCredential]:
    """The instance-wide provider keys and base URLs as configured."""
    return {
        name: InstanceCredential(provider.api_key, provider.base_url)
        for name, provider in configuration.instance_providers.items()
    }


def tls_context(configuration: Configuration) -> ssl.SSLContext | None:
    """What encrypts clients' connections, None where nothing does. Raises OSError."""
    if configuration.tls_cert is None:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(configuration.tls_cert, configuration.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context
