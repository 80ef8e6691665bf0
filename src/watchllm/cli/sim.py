"""`watchllm sim`: the simulated provider as a process of its own."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from watchllm.sim.app import SimOptions

_MAX_BODY_BYTES = 128 * 1024 * 1024
_DRAIN_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("sim")(sim)


def sim(
    host: str = typer.Option("127.0.0.1", envvar="WATCHLLM_HOST", help="Address to listen on."),
    port: int = typer.Option(9090, envvar="WATCHLLM_SIM_PORT", help="Port to listen on; 0 = any free one."),
    latency: str = typer.Option("0", help="Time before each answer, such as 200ms or 1s."),
    chunk_time: str = typer.Option("0", help="Time between two events of a stream."),
    error_rate: float = typer.Option(0.0, min=0.0, max=1.0, help="Share of calls that fail (see --status, --seed)."),
    status: int = typer.Option(0, help="Answer with this status; with --error-rate, only the calls that fail."),
    seed: int = typer.Option(0, help="Decides which calls fail; the same seed, the same calls."),
    require_key: str = typer.Option("", help="Refuse every other key with 401."),
    tokens: int = typer.Option(0, min=0, max=1_000_000, help="Tokens of each answer; 0 = 20 to 60."),
    record: int = typer.Option(1000, min=0, max=100_000, help="Latest requests kept for GET /sim/requests."),
    judge_labels: Path | None = typer.Option(
        None, exists=True, dir_okay=False, help='Lines of {"a", "b", "label"} that sim/judge knows.'
    ),
) -> None:
    """Run the simulated provider (OpenAI and Anthropic): deterministic answers, and knobs for all that goes wrong.

    One request asks for more by its model's name (sim/slow-500ms+tokens-50) or the X-Sim header.
    """
    from watchllm.sim.app import SimOptions
    from watchllm.sim.knobs import Knobs, parse_duration, parse_status

    knobs = Knobs(
        latency=_parsed("--latency", latency, parse_duration),
        chunk_time=_parsed("--chunk-time", chunk_time, parse_duration),
        error_rate=error_rate,
        status=_parsed("--status", str(status), parse_status) if status else 0,
        tokens=tokens,
    )
    labels = {} if judge_labels is None else _parsed("--judge-labels", str(judge_labels), _labels_in)
    options = SimOptions(knobs=knobs, seed=seed, require_key=require_key, record=record, labels=labels)
    import uvloop

    try:
        uvloop.run(_serve(options, host, port))
    except OSError as error:
        typer.echo(f"Cannot listen on {host}:{port}: {error.strerror or error}. Choose another --port.", err=True)
        raise typer.Exit(1) from None


def _parsed(option: str, text: str, parser: Callable[[str], Any]) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text}: {error}", param_hint=option) from None


def _labels_in(path: str) -> dict[tuple[str, str], bool]:
    from watchllm.sim.judge import read_labels

    return read_labels(Path(path).read_bytes())


async def _serve(options: "SimOptions", host: str, port: int) -> None:
    import signal

    from watchllm.sim.app import SimApp
    from watchllm.wire.server import ServerLimits, serve

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await serve(SimApp(options), host=host, port=port, limits=ServerLimits(max_body_bytes=_MAX_BODY_BYTES))
    typer.echo(f"Simulated provider: http://{host}:{server.port}/v1", err=True)
    await stopping.wait()
    await server.drain(_DRAIN_SECONDS)
