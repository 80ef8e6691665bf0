"""`watchllm plan`: list."""

import typer

from watchllm.cli.output import JSON, print_json, print_rows
from watchllm.cli.session import control_plane
from watchllm.control import described

app = typer.Typer(no_args_is_help=True, help="Plans: what organizations may use, from plans.toml.")
_COLUMNS = ("name", "tier", "price_usd_month", "monthly_requests", "requests_per_minute", "log_days")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List all plans, the operator's own in WATCHLLM_HOME/plans.toml on top of the built-in ones."""
    with control_plane() as plane:
        plans = [described.plan(name, plan) for name, plan in plane.plans().items()]
    if as_json:
        print_json(plans)
    else:
        print_rows(plans, _COLUMNS, nothing="no plan")
