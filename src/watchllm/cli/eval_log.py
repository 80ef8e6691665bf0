"""`watchllm eval --log`: a log of prompts replayed through an empty cache, to judge it before adopting it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from watchllm.cli.output import print_fields
from watchllm.cli.price_book import price_book

if TYPE_CHECKING:
    from watchllm.cache.semantic.decide import Policy
    from watchllm.cache.semantic.replay import Replay, Served

_SHOWN: Final = 400
"""Characters of a prompt that people are shown; `--json` has all."""


def replay_log(log: Path, policy: "Policy", ttl: int, *, as_json: bool) -> None:
    """Replay, and print every pair that would have been served, as it is found, and the sums.

    The log is read twice: a line that is wrong is told before anything is printed.
    """
    from watchllm.cache.semantic.logged import BadLine, read_log
    from watchllm.cache.semantic.replay import Replay
    from watchllm.cache.semantic.static import StaticEmbedder

    if not log.is_file():
        raise typer.BadParameter("it is read twice, and has to be a file", param_hint=str(log))
    try:
        with log.open("rb") as lines:
            for _ in read_log(lines):
                pass
        replay = Replay(StaticEmbedder.load(), policy, price_book(), ttl=ttl)
        with log.open("rb") as lines, log.open("rb") as again:
            pairs = (
                _as_data(served, _prompt_at(again, served.stored.offset)) for served in replay.serve(read_log(lines))
            )
            if as_json:
                _print_document(pairs, replay)
            else:
                _print_text(pairs, replay)
    except BadLine as error:
        raise typer.BadParameter(str(error), param_hint=str(log)) from None


def _print_document(pairs: Iterator[dict[str, Any]], replay: "Replay") -> None:
    """One JSON document, written as it grows: a log may hold more pairs than memory."""
    typer.echo('{"served": [', nl=False)
    for number, pair in enumerate(pairs):
        typer.echo((",\n  " if number else "\n  ") + msgspec.json.encode(pair).decode(), nl=False)
    typer.echo(f'\n], "summary": {msgspec.json.encode(_summary(replay)).decode()}}}')


def _print_text(pairs: Iterator[dict[str, Any]], replay: "Replay") -> None:
    for pair in pairs:
        saved = "" if pair["saved_usd"] is None else f", {pair['saved_usd']:.6f} USD saved"
        typer.echo(
            f"line {pair['line']} would have had the answer to line {pair['stored_line']}"
            f" (similarity {pair['similarity']:.2f}, confidence {pair['confidence']:.2f}{saved})\n"
            f"  stored  {_visible(pair['stored'])}\n  asked   {_visible(pair['asked'])}"
        )
    print_fields({name: _shown(name, value) for name, value in _summary(replay).items()})


def _summary(replay: "Replay") -> dict[str, Any]:
    totals = replay.totals
    count = totals.requests
    return {
        "requests": count,
        "hit_rate": (totals.exact_hits + totals.semantic_hits) / count if count else None,
        "exact_hits": totals.exact_hits,
        "semantic_hits": totals.semantic_hits,
        "not_compared": totals.not_compared,
        "cost_usd": round(totals.cost_usd, 6),
        "saved_usd": round(totals.saved_usd, 6),
        "saved_usd_semantic": round(totals.saved_usd_semantic, 6),
        "without_cost": totals.without_cost,
        "forgotten": totals.forgotten,
    }


def _shown(name: str, value: Any) -> Any:
    if name == "hit_rate":
        return "-" if value is None else f"{value:.1%}"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _as_data(served: "Served", stored: str) -> dict[str, Any]:
    return {
        "line": served.asked.line,
        "stored_line": served.stored.line,
        "similarity": round(served.decision.similarity, 4),
        "confidence": round(served.decision.confidence, 4),
        "saved_usd": None if served.saved is None else round(served.saved, 6),
        "stored": stored,
        "asked": served.asked.prompt,
    }


def _prompt_at(log: Any, offset: int) -> str:
    """The prompt of the line that starts at `offset`: the texts of a long log are not kept in memory."""
    from watchllm.cache.semantic.logged import read_log

    log.seek(offset)
    return next(read_log([log.readline()])).prompt or ""


def _visible(prompt: str) -> str:
    """On one line, without what a terminal would obey."""
    text = "".join(char if char.isprintable() else " " for char in prompt[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
