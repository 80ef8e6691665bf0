"""`watchllm cache`: what it holds, forgetting, and bringing known answers in."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer
from msgspec.structs import replace

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import configuration, control_plane
from watchllm.domain import ids

if TYPE_CHECKING:
    from watchllm.cache.entry import InvalidationFilter
    from watchllm.compose.cache_import import Imported

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
    entry: str | None = typer.Option(
        None,
        metavar="ENTRY",
        help="Only this entry; `watchllm explain` shows its id.",
    ),
    request: str | None = typer.Option(
        None, metavar="REQ_ID", help="Only the entry that this request stored or was given, while a proxy remembers it."
    ),
    source_key: str | None = typer.Option(
        None,
        metavar="KEY_ID",
        help="Let like questions no longer find what this key stored.",
    ),
    answers: bool = typer.Option(False, "--answers", help="Forget the answers that the --source-key brought, too."),
    as_json: bool = JSON,
) -> None:
    """Forget a project's stored answers, of live and of test keys. In force on this host's proxies when it returns."""
    from watchllm.compose.cache_admin import open_cache
    from watchllm.domain.errors import GatewayError

    if source_key is not None and everything:
        raise typer.BadParameter("contradicts --source-key: leave one of them out", param_hint="--all")
    if answers and source_key is None:
        raise typer.BadParameter("are those of a --source-key", param_hint="--answers")
    if request is not None:
        entry = _entry_of(request, entry)
    what = replace(_filter(model, before, kind, entry, everything=everything), source=source_key)
    with control_plane() as plane:
        plane.project(project)
    try:
        with open_cache(configuration()) as cache:
            forget = cache.purge if source_key is None or answers else cache.forget_prompts
            count = forget(project, what)
    except GatewayError as error:
        typer.echo(f"watchllm: {error}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        print_json({"project_id": project, "invalidated": count})
    else:
        typer.echo(f"{count} {'entry' if count == 1 else 'entries'} forgotten", err=True)


@app.command("import")
def import_(
    file: Path = typer.Argument(metavar="FILE", help="Lines of JSON; - = stdin."),
    project: str = typer.Option(help="The project's id.", metavar="ID"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would come of it, and store nothing."),
    as_json: bool = JSON,
) -> None:
    """Bring known answers into a project's cache: the same requests are hits on this host when it returns.

    A line is {"request": {…}, "response": {…}}: the body of a request and the whole answer to it. It may also have
    "endpoint" (such as /v1/embeddings), "created", "ttl" and "user". Every line that cannot be kept is told on stderr
    with the reason, and the exit code is then 1. Run it with the environment of the proxy: which provider a model leads
    to, and where that is, is part of what makes requests the same.
    """
    from watchllm.compose.cache_import import Refused, import_answers
    from watchllm.domain.errors import GatewayError

    def tell(refused: Refused) -> None:
        typer.echo(f"line {refused.line}: {refused.reason}", err=True)

    with _opened(file) as stream:
        with control_plane() as plane:
            plane.project(project)
        try:
            imported = import_answers(configuration(), project, stream, tell, dry_run=dry_run)
        except GatewayError as error:
            typer.echo(f"watchllm: {error}", err=True)
            raise typer.Exit(1) from None
    _print_imported(imported, as_json=as_json)
    if imported.refused:
        raise typer.Exit(1)


def _opened(file: Path) -> BinaryIO:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None


def _print_imported(imported: "Imported", *, as_json: bool) -> None:
    if as_json:
        print_json(imported)
        return
    would = "would be " if imported.dry_run else ""
    kept = f", {imported.kept} left as they are for a newer answer" if imported.kept else ""
    evicted = f"; {imported.evicted} entries were evicted to make room" if imported.evicted else ""
    typer.echo(f"{imported.imported} {would}imported{kept}, {imported.refused} refused{evicted}", err=True)
    for source in imported.providers:
        typer.echo(f"{source.answers} as answers of {source.provider} at {source.origin}", err=True)


def _entry_of(request_id: str, entry: str | None) -> str:
    """The id of the entry that a request stored or was given, asked of this host's proxies."""
    from watchllm.compose.explain import explain

    if entry is not None:
        raise typer.BadParameter("contradicts --entry: leave one of them out", param_hint="--request")
    if not ids.has_form(request_id, ids.REQUEST):
        raise typer.BadParameter(f"{request_id!r} is not a request id, which begins with req_", param_hint="--request")
    told, _ = explain(configuration(), request_id)
    if told is None:
        typer.echo(f"watchllm: no proxy of this host remembers {request_id}; purge by --entry or by time", err=True)
        raise typer.Exit(1)
    if told.get("entry") is None:
        typer.echo(f"watchllm: {request_id} stored nothing and was given nothing from the cache", err=True)
        raise typer.Exit(1)
    return str(told["entry"])


def _filter(
    model: str | None, before: str | None, kind: str | None, entry: str | None, *, everything: bool
) -> "InvalidationFilter":
    """As `/v1/cache/invalidate` reads it."""
    from watchllm.compose.cache_admin import invalidation_filter
    from watchllm.domain.errors import BadRequest

    given: dict[str, Any] = {"model": model, "before": before, "kind": kind, "entry": entry}
    document = {name: value for name, value in given.items() if value is not None}
    if everything and document:
        raise typer.BadParameter(f"contradicts --{min(document)}: leave one of them out", param_hint="--all")
    if before is not None and before.replace(".", "", 1).isdecimal():
        document["before"] = float(before)
    try:
        return invalidation_filter(document)
    except BadRequest as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.param}") from None
