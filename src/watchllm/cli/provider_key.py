"""`watchllm provider-key`: add, list, remove."""

from typing import TYPE_CHECKING, Any

import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.secret import read_secret
from watchllm.cli.session import configuration, control_plane
from watchllm.domain.moments import timestamp

if TYPE_CHECKING:
    from watchllm.analytics.key_use_log import KeyState
    from watchllm.control.provider_keys import ProviderKey

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
    # Whether it may be empty is for the control plane to say, which knows the provider.
    secret = read_secret("Provider key", from_env, optional=True)
    if base_url is not None and not configuration().allow_private_urls:
        _check_address(base_url)
    with control_plane() as plane:
        key = plane.add_provider_key(project, provider, secret, base_url=base_url, priority=priority, dialect=dialect)
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
    from watchllm.control import vendors
    from watchllm.providers.dialect import CHAT

    with control_plane() as plane:
        listed = plane.provider_keys(project)
        with plane.database.reporting() as connection:
            states = key_use_log.states(connection, project)
    keys = [_as_data(key) | _state(states.get(key.id)) for key in listed]
    if as_json:
        print_json(keys)
    else:
        known = vendors.names()
        for key in keys:
            if key["provider"] not in known:
                # A provider of the project's own speaks what its key says; of the others that is no question.
                key["dialect"] = key["dialect"] or CHAT
            if key["state"] == "refused":
                key["state"] = f"refused by the provider at {key['refused_at']}"
        columns = ("id", "provider", "masked", "dialect", "base_url", "priority", "project_id", "last_used", "state")
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


def _check_address(base_url: str) -> None:
    """Warn of an address that proxies refuse to call for a project; exit 1 for one where no provider can be.

    Raises Invalid for a URL of the wrong form.
    """
    from watchllm.compose.base_url import Verdict, judge
    from watchllm.control.provider_keys import check_base_url

    check_base_url(base_url)
    verdict = judge(base_url)
    if verdict is Verdict.METADATA:
        typer.echo(
            f"watchllm: {base_url} is a link-local address or a cloud's metadata service, which proxies never call for "
            "a project; nothing was added. Where a provider really answers there, set WATCHLLM_ALLOW_PRIVATE_URLS=true "
            "for this command and for the proxies",
            err=True,
        )
        raise typer.Exit(1)
    if verdict is Verdict.PRIVATE:
        typer.echo(
            f"watchllm: warning: {base_url} is not a public address, and proxies refuse to call it for a project; "
            "start them with WATCHLLM_ALLOW_PRIVATE_URLS=true to allow it",
            err=True,
        )
    elif verdict is Verdict.UNKNOWN:
        typer.echo(f"watchllm: warning: the host of {base_url} does not resolve here; is it spelled right?", err=True)


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
