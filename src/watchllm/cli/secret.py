"""`watchllm secret rotate`, and how commands read secrets: from stdin or a variable, never from the arguments, which
every user of the machine can read."""

import os
import sys

import typer

from watchllm.cli.output import JSON, print_json
from watchllm.cli.session import configuration

app = typer.Typer(no_args_is_help=True, help="The master secret that provider keys are encrypted under.")

_CONFIGURED = (
    "watchllm: set the new secret as WATCHLLM_SECRET_KEY wherever the old one is, and restart what runs with the old "
    "one alone: it cannot open provider keys any more"
)


@app.callback()
def group() -> None:
    """Without it, typer would make the only command the whole group."""


@app.command()
def rotate(
    from_stdin: bool = typer.Option(False, "--stdin", help="Read the new secret from stdin."),
    from_env: str | None = typer.Option(None, metavar="VAR", help="Read the new secret from this variable."),
    as_json: bool = JSON,
) -> None:
    """Encrypt every provider key under a new secret.

    Without one, the secret in WATCHLLM_HOME is replaced by one that is made; where WATCHLLM_SECRET_KEY is set, what is
    sealed under WATCHLLM_SECRET_KEY_PREVIOUS is sealed under WATCHLLM_SECRET_KEY.
    """
    from watchllm.compose.secret import rotate as rotate_secret

    if from_stdin and from_env is not None:
        raise typer.BadParameter("give the secret once: --stdin or --from-env", param_hint="--stdin")
    new = read_secret("New secret", from_env) if from_stdin or from_env is not None else None
    loaded = configuration()
    rotation = rotate_secret(loaded, new)
    if as_json:
        print_json({"provider_keys": rotation.provider_keys})
    else:
        typer.echo(f"{rotation.provider_keys} provider keys sealed anew")
    if rotation.is_configured and new is not None:
        typer.echo(_CONFIGURED, err=True)


def read_secret(name: str, from_env: str | None) -> str:
    """The secret in the variable `from_env`, or from stdin, where a terminal is asked for the `name`.

    Raises BadParameter where there is none.
    """
    if from_env is not None:
        secret = os.environ.get(from_env, "").strip()
        if not secret:
            raise typer.BadParameter(f"the variable {from_env} is not set", param_hint="--from-env")
        return secret
    if sys.stdin.isatty():
        return str(typer.prompt(name, hide_input=True, err=True)).strip()
    secret = sys.stdin.read().strip()
    if not secret:
        raise typer.BadParameter("no secret came on stdin: pipe it in, or use --from-env VAR", param_hint="stdin")
    return secret
