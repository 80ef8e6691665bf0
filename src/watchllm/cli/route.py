"""`watchllm route`: set, list, remove."""

from typing import TYPE_CHECKING, Any

import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import control_plane
from watchllm.domain.moments import timestamp
from watchllm.domain.snapshot import RouteRecord

if TYPE_CHECKING:
    from watchllm.control.routes import Route

app = typer.Typer(no_args_is_help=True, help="A project's rules of where models lead, and what follows when one fails.")
_PROJECT = typer.Option(help="The project's id.", metavar="ID")
_NAME = typer.Argument(metavar="NAME", help="A model or an alias as clients send it; may end in *.")


@app.command("set")
def set_(
    name: str = _NAME,
    project: str = _PROJECT,
    to: str = typer.Option(metavar="MODEL[=WEIGHT],…", help="Where it leads; several share the questions by weight."),
    fallback: str = typer.Option("", metavar="MODEL,…", help="What is tried, in this order, when those fail."),
    retries: int = typer.Option(0, help="Further tries at one target, with back-off."),
    try_timeout: float | None = typer.Option(None, metavar="S", help="Seconds for one call upstream."),
    timeout: float | None = typer.Option(None, metavar="S", help="Seconds for all calls of a request together."),
    hedge_after: float | None = typer.Option(
        None, metavar="S", help="After so many seconds without an answer, begin a second call beside the first."
    ),
    as_json: bool = JSON,
) -> None:
    """Set a route, in place of the one of the same name."""
    choices = tuple(_choice(text) for text in _parts(to))
    rule = RouteRecord(name, choices, _parts(fallback), retries, try_timeout, timeout, hedge_after)
    with control_plane() as plane:
        route = plane.set_route(project, rule)
    if as_json:
        print_json(_as_data(route))


@app.command("list")
def list_(
    project: str | None = typer.Option(None, help="Only this project's.", metavar="ID"), as_json: bool = JSON
) -> None:
    """List routes."""
    with control_plane() as plane:
        routes = [_as_data(route) for route in plane.routes(project)]
    if as_json:
        print_json(routes)
        return
    for route in routes:
        route["to"] = [f"{choice['model']}={choice['weight']}" for choice in route["to"]]
    columns = ("name", "to", "fallbacks", "retries", "try_timeout", "timeout", "hedge_after", "project_id")
    print_rows(routes, columns, nothing="no route yet; `watchllm route set NAME --project ID --to MODEL`")


@app.command()
def remove(name: str = _NAME, project: str = _PROJECT, as_json: bool = JSON) -> None:
    """Remove a route."""
    with control_plane() as plane:
        route = plane.remove_route(project, name)
    if as_json:
        print_json(_as_data(route))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _choice(text: str) -> tuple[str, int]:
    model, equals, weight = text.rpartition("=")
    if not equals:
        return text, 1
    if not weight.isdecimal() or not weight.isascii() or len(weight) > 9:
        raise typer.BadParameter(f"{text!r}: expected MODEL or MODEL=WEIGHT, a whole number", param_hint="--to")
    return model, int(weight)


def _as_data(route: "Route") -> dict[str, Any]:
    rule = route.rule
    return {
        "name": rule.name,
        "to": [{"model": model, "weight": weight} for model, weight in rule.choices],
        "fallbacks": list(rule.fallbacks),
        "retries": rule.retries,
        "try_timeout": rule.try_timeout,
        "timeout": rule.timeout,
        "hedge_after": rule.hedge_after,
        "project_id": route.project_id,
        "created_at": timestamp(route.created_ms),
    }
