"""`watchllm provider-key`: add, list, remove. The secret comes from stdin or a variable, never from the arguments,
which every user of the machine can read."""

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from watchllm.cli.output import JSON, print_json, print_rows, timestamp
from watchllm.cli.session import configuration, control_plane

if TYPE_CHECKING:
    from watchllm.analytics.key_use_log import KeyState
    from watchllm.control.provider_keys import ProviderKey

_RESOLVE_SECONDS = 2.0

app = typer.Typer(no_args_is_help=True, help="A project's own keys of providers, encrypted at rest.")


@app.command()
def add(
    provider: str = typer.Argument(metavar="PROVIDER", help="openai, anthropic, mistral…, or a name of your own."),
    project: str = typer.Option(help="The project's id.", metavar="ID"),
    base_url: str | None = typer.Option(None, metavar="URL", help="Where the provider answers, if it is your own."),
    priority: int = typer.Option(0, help="Lower is tried first."),
    dialect: str | None = typer.Option(
        None, metavar="NAME", help="What a provider of your own speaks: chat (default), messages or responses."
    ),
    from_env: str | None = typer.Option(None, metavar="VAR", help="Read the secret from this variable."),
    as_json: bool = JSON,
) -> None:
    """Add a provider key; the secret is read from stdin. A server that needs none, such as ollama, takes `-`."""
    secret = _secret(from_env)
    with control_plane() as plane:
        key = plane.add_provider_key(project, provider, secret, base_url=base_url, priority=priority, dialect=dialect)
    if key.base_url is not None and not configuration().allow_private_urls and _is_private(key.base_url):
        typer.echo(
            f"watchllm: warning: {key.base_url} is not a public address, and proxies refuse to call it for a project; "
            "start them with WATCHLLM_ALLOW_PRIVATE_URLS=true to allow it",
            err=True,
        )
    if as_json:
        print_json(_as_data(key))
    else:
        typer.echo(key.id)


@app.command("list")
def list_(
    project: str | None = typer.Option(None, help="Only this project's.", metavar="ID"), as_json: bool = JSON
) -> None:
    """List provider keys, their secrets masked, and whether the provider takes them."""
    from watchllm.analytics import key_use_log

    with control_plane() as plane:
        listed = plane.provider_keys(project)
        with plane.database.reading() as connection:
            states = key_use_log.states(connection, project)
    keys = [_as_data(key) | _state(states.get(key.id)) for key in listed]
    if as_json:
        print_json(keys)
    else:
        for key in keys:
            if key["state"] == "refused":
                key["state"] = f"refused by the provider at {key['refused_at']}"
        columns = ("id", "provider", "masked", "base_url", "priority", "project_id", "last_used", "state")
        print_rows(keys, columns, nothing="no provider key yet; `watchllm provider-key add PROVIDER --project ID`")


@app.command()
def remove(
    key_id: str = typer.Argument(metavar="ID", help="The provider key's id, pvk_…."), as_json: bool = JSON
) -> None:
    """Remove a provider key and its secret."""
    with control_plane() as plane:
        key = plane.remove_provider_key(key_id)
    if as_json:
        print_json(_as_data(key))


def _is_private(base_url: str) -> bool:
    """Whether the proxy would refuse the host's address now. One that does not resolve here may do so there."""
    import asyncio
    from urllib.parse import urlsplit

    from watchllm.wire.address import resolve
    from watchllm.wire.types import AddressRefused, ConnectFailed

    async def look() -> None:
        host = urlsplit(base_url).hostname or ""
        await asyncio.wait_for(resolve(asyncio.get_running_loop(), host, 443, public_only=True), _RESOLVE_SECONDS)

    try:
        asyncio.run(look())
    except AddressRefused:
        return True
    except (ConnectFailed, TimeoutError):
        return False
    return False


def _secret(from_env: str | None) -> str:
    if from_env is not None:
        secret = os.environ.get(from_env, "")
        if not secret:
            raise typer.BadParameter(f"the variable {from_env} is not set", param_hint="--from-env")
        return secret.strip()
    if sys.stdin.isatty():
        return str(typer.prompt("Provider key", hide_input=True, err=True)).strip()
    # Whether it may be empty is for the control plane to say, which knows the provider.
    return sys.stdin.read().strip()


def _state(state: "KeyState | None") -> dict[str, Any]:
    if state is None:
        return {"last_used": None, "refused_at": None, "state": "unused"}
    return {
        "last_used": timestamp(state.last_used_ms),
        "refused_at": timestamp(state.refused_ms),
        "state": "used" if state.refused_ms is None else "refused",
    }


def _as_data(key: "ProviderKey") -> dict[str, Any]:
    return {
        "id": key.id,
        "provider": key.provider,
        "masked": key.masked,
        "base_url": key.base_url,
        "dialect": key.dialect,
        "priority": key.priority,
        "project_id": key.project_id,
        "created_at": timestamp(key.created_ms),
    }
