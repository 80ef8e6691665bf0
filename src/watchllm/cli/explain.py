"""`watchllm explain req_…`: why a request was a hit or a miss."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from watchllm.cli.output import JSON, print_json
from watchllm.cli.session import configuration
from watchllm.domain import ids


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("explain")(explain)


def explain(
    request_id: Annotated[str, typer.Argument(metavar="REQ_ID", help="The X-Request-Id of an answer.")],
    as_json: bool = JSON,
) -> None:
    """Say why a request was a hit, a miss or a bypass: the reason, the nearest earlier request, the fields that differ.

    Proxies remember the latest 256 hits and misses of each project, as digests, until they end.
    """
    if not ids.has_form(request_id, ids.REQUEST):
        raise typer.BadParameter(f"{request_id!r} is not a request id, which begins with req_", param_hint="REQ_ID")
    from watchllm.compose.explain import explain as ask

    told, asked = ask(configuration(), request_id)
    if told is None:
        where = (
            f"none of the {asked} running proxies remembers" if asked else "no proxy runs on this host, so none knows"
        )
        row = "`watchllm usage export` has its row, unless it was refused before its key was looked at"
        typer.echo(f"watchllm: {where} {request_id}; {row} (as with 503 shutting_down)", err=True)
        raise typer.Exit(1)
    if as_json:
        print_json(told)
        return
    for line in _lines(told):
        typer.echo(line)


def _lines(told: dict[str, Any]) -> list[str]:
    led = f"{told['alias']} led to {told['model']}" if told["alias"] else told["model"]
    lines = [f"{told['request_id']}: {told['outcome']} ({led})", told["reason"]]
    if told["outcome"] == "hit":
        stored = datetime.fromtimestamp(told["stored_ms"] / 1000, UTC).isoformat(timespec="seconds")
        source = f" by {told['stored_by']}" if told["stored_by"] else ""
        return [*lines, f"stored {stored}{source}", *_by_meaning(told), f"its entry: {told['entry']}"]
    if told["outcome"] == "bypass":
        return lines
    lines += _by_meaning(told)
    if told["entry"]:
        lines.append(f"what is stored for it: {told['entry']}")
    if told["nearest"] is None:
        return [*lines, "no earlier request of this project with the same model is remembered"]
    if not told["differs_in"]:
        return [*lines, f"nearest earlier request: {told['nearest']}, which asked the same"]
    return [*lines, f"nearest earlier request: {told['nearest']}", f"differs in: {', '.join(told['differs_in'])}"]


def _by_meaning(told: dict[str, Any]) -> list[str]:
    """What came of looking for an answer to a like question."""
    looked = told.get("semantic")
    if looked is None:
        return []
    outcome = f"by meaning: {looked['outcome']}" + (f" ({looked['reason']})" if looked["reason"] else "")
    if looked["similarity"] is None:
        return [outcome]
    compared = f"similarity {looked['similarity']:.4f}, confidence {looked['confidence']:.4f}: {looked['because']}"
    asked = f" with {looked['nearest']}" if looked["nearest"] else ""
    return [outcome, f"compared{asked}: {compared}"]
