"""`watchllm cache`: what it holds, and forgetting."""

from typing import TYPE_CHECKING, Any

import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import configuration, control_plane

if TYPE_CHECKING:
    from watchllm.cache.entry import InvalidationFilter

app = typer.Typer(no_args_is_help=True, help="The exact cache of this host.")


@app.command()
def stats(
    project: str | None = typer.Option(None, help="Only this project's.", metavar="ID"), as_json: bool = JSON
) -> None:
    """Show entries and bytes, of each project's live and test keys apart, and of the whole file."""
    from watchllm.compose.cache_admin import open_cache

    with control_plane() as plane:
        projects = [plane.project(project)] if project is not None else plane.projects()
    rows: list[dict[str, Any]] = []
    with open_cache(configuration()) as cache:
        for found in projects:
            for test in (False, True):
                held = cache.stats(found.id, test=test)
                rows.append(
                    {"project_id": found.id, "name": found.name, "keys": "test" if test else "live"}
                    | {"entries": held.entries, "bytes": held.bytes, "by_kind": held.by_kind}
                )
        totals = cache.totals()
    if isinstance(totals, str):
        typer.echo(f"watchllm: {totals}", err=True)
        raise typer.Exit(1)
    if as_json:
        whole = {"entries": totals.entries, "bytes": totals.bytes, "max_bytes": totals.max_bytes}
        print_json({"total": whole, "projects": rows})
    else:
        for row in rows:
            row["by_kind"] = [f"{kind}={count}" for kind, count in row["by_kind"].items()]
        columns = ("project_id", "name", "keys", "entries", "bytes", "by_kind")
        print_rows(rows, columns, nothing="no project yet; `watchllm project create NAME`")
        typer.echo(f"In all {totals.entries} entries, {totals.bytes} of {totals.max_bytes} bytes.", err=True)


@app.command()
def purge(
    project: str = typer.Option(help="The project's id.", metavar="ID"),
    model: str | None = typer.Option(None, help="Only answers of this model."),
    before: str | None = typer.Option(
        None, metavar="TS", help="Only what was stored before: epoch seconds, or ISO 8601 such as 2030-01-31T12:00:00Z."
    ),
    kind: str | None = typer.Option(None, help="Only generate, completions or embeddings."),
    everything: bool = typer.Option(False, "--all", help="Everything; the same as giving no filter."),
    source_key: str | None = typer.Option(
        None,
        metavar="KEY_ID",
        help="Let like questions no longer find what this key stored, in place of forgetting answers.",
    ),
    as_json: bool = JSON,
) -> None:
    """Forget a project's stored answers, of live and of test keys. In force on this host's proxies when it returns."""
    from watchllm.cache.semantic.vectors import VectorFilter
    from watchllm.compose.cache_admin import open_cache
    from watchllm.domain.errors import GatewayError

    if source_key is not None and everything:
        raise typer.BadParameter("contradicts --source-key: leave one of them out", param_hint="--all")
    what = _filter(model, before, kind, everything=everything)
    with control_plane() as plane:
        plane.project(project)
    try:
        with open_cache(configuration()) as cache:
            if source_key is None:
                count = cache.purge(project, what)
            else:
                count = cache.forget_prompts(project, VectorFilter(what, source=source_key))
    except GatewayError as error:
        typer.echo(f"watchllm: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        print_json({"project_id": project, "invalidated": count})
    else:
        typer.echo(f"{count} {'entry' if count == 1 else 'entries'} forgotten", err=True)


def _filter(model: str | None, before: str | None, kind: str | None, *, everything: bool) -> "InvalidationFilter":
    """As `/v1/cache/invalidate` reads it."""
    from watchllm.compose.cache_admin import invalidation_filter
    from watchllm.domain.errors import BadRequest

    given: dict[str, Any] = {"model": model, "before": before, "kind": kind}
    document = {name: value for name, value in given.items() if value is not None}
    if everything and document:
        raise typer.BadParameter(f"contradicts --{min(document)}: leave one of them out", param_hint="--all")
    if before is not None and before.replace(".", "", 1).isdecimal():
        document["before"] = float(before)
    try:
        return invalidation_filter(document)
    except BadRequest as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.param}") from None
