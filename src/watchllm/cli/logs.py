"""`watchllm logs tail`: live requests in the terminal."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from watchllm.cli.session import configuration, control_plane
from watchllm.domain.usage_log import COLUMNS

app = typer.Typer(no_args_is_help=True, help="Live requests.")


@app.callback()
def group() -> None:
    """Without it, typer would make the only command the whole group."""


@app.command()
def tail(
    project: Annotated[str | None, typer.Option(metavar="ID", help="Only this project's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line, as in the export.")] = False,
) -> None:
    """Show the requests of this host's proxies as they end, until interrupted."""
    from watchllm.compose.live import LiveRequests

    if project is not None:
        with control_plane() as plane:
            plane.project(project)
    live = LiveRequests(configuration())
    typer.echo("waiting for requests; end with Ctrl-C", err=True)
    try:
        for event in live.events():
            if event.kind == "request":
                if project is None or event.data["project_id"] == project:
                    _show(event.data, as_json=as_json)
            elif event.kind == "missed":
                typer.echo(f"watchllm: {event.data['missed']} requests went by too quickly to be shown", err=True)
            elif event.kind == "listening":
                typer.echo(f"listening to proxy {event.proxy}", err=True)
            else:
                typer.echo(f"proxy {event.proxy} has ended", err=True)
    except KeyboardInterrupt:
        live.close()


def _show(data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        from watchllm.analytics.formats import document

        typer.echo(msgspec.json.encode(document([data[name] for name in COLUMNS])))
        return
    moment = datetime.fromtimestamp(data["at_ms"] / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    tokens = "-" if data["input_tokens"] is None else f"{data['input_tokens']}+{data['output_tokens']}"
    where = f"{data['provider']}/{data['model']}" if data["provider"] else data["model"] or "-"
    columns = (
        moment,
        str(data["status"]),
        (data["cache"] or "-").ljust(13),
        data["endpoint"].ljust(11),
        where.ljust(28),
        f"{data['total_us'] / 1000:9.1f} ms",
        tokens.rjust(12),
        _cost(data).rjust(11),
        data["request_id"],
        data["error"] or "",
    )
    print("  ".join(columns).rstrip(), flush=True)


def _cost(data: dict[str, Any]) -> str:
    if data["cost_nanos"] is not None:
        return f"${data['cost_nanos'] / 1e9:.6f}"
    # What never reached a provider, or was refused there, has no cost that a price could have told.
    return "unpriced" if data["attempts"] is not None and data["status"] < 400 else "-"
