"""`watchllm eval`: the semantic cache judged on pairs of prompts, before anybody relies on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchllm.cli.output import JSON, print_json, print_rows

if TYPE_CHECKING:
    from watchllm.cache.semantic.decide import Policy
    from watchllm.cache.semantic.evaluate import Judged


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    pairs: Annotated[
        Path | None,
        typer.Argument(metavar="PAIRS.jsonl", exists=True, dir_okay=False, help='Lines of {"id", "a", "b"}.'),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="REQUESTS.jsonl",
            exists=True,
            dir_okay=False,
            help="Replay a log of requests, oldest first, instead.",
        ),
    ] = None,
    ttl: Annotated[
        int, typer.Option(min=-1, help="Seconds that an answer is kept, where the log tells the time; -1 = for ever.")
    ] = 86_400,
    min_confidence: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="How sure it has to be; the default is a project's.")
    ] = None,
    similarity_threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="A floor for the similarity beside it.")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Judge the semantic cache on pairs of prompts: whether the answer to a would be served for b.

    Each pair is decided by itself, with no history and no server. With a label (1 = serving is right, 0 = it is not)
    and a capability on the lines, rates are told by capability.

    With --log, the requests of a log (bodies as OpenAI takes them, or {"prompt"}; with time, cost in USD and usage
    where they are known) go through an empty cache, and every pair is printed that it would have served.
    """
    from watchllm.cache.semantic.decide import DEFAULT_MIN_CONFIDENCE, Policy
    from watchllm.cli.eval_log import replay_log

    policy = Policy(DEFAULT_MIN_CONFIDENCE if min_confidence is None else min_confidence, similarity_threshold)
    if (pairs is None) == (log is None):
        raise typer.BadParameter("give a file of pairs, or --log and a file of requests")
    if log is not None:
        replay_log(log, policy, ttl, as_json=as_json)
    elif pairs is not None:
        _judge_pairs(pairs, policy, as_json=as_json)


def _judge_pairs(pairs: Path, policy: "Policy", *, as_json: bool) -> None:
    from watchllm.cache.semantic.evaluate import BadPair, judge, read_pairs, summary
    from watchllm.cache.semantic.static import StaticEmbedder

    try:
        with pairs.open("rb") as lines:
            judged = list(judge(read_pairs(lines), StaticEmbedder.load(), policy))
    except BadPair as error:
        raise typer.BadParameter(str(error), param_hint=str(pairs)) from None
    rows = summary(judged)
    if as_json:
        print_json({"decisions": [_as_data(one) for one in judged], "summary": rows})
        return
    shown = [
        {"capability": name, **{field: _shown(value) for field, value in row.items()}} for name, row in rows.items()
    ]
    columns = (
        "capability",
        "pairs",
        "hit_rate",
        "precision",
        "precision_95",
        "recall",
        "recall_judged",
        "false_hit_rate",
        "false_hit_rate_95",
        "microseconds",
    )
    print_rows(shown, columns, nothing="the file holds no pairs")


def _as_data(one: "Judged") -> dict[str, Any]:
    decision = one.decision
    return {
        "id": one.pair.id,
        "similarity": round(decision.similarity, 4),
        "confidence": round(decision.confidence, 4),
        "hit": decision.hit,
        "guard": decision.guard,
    }


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "–".join(f"{share:.1%}" for share in value)
    return f"{value:.1%}" if isinstance(value, float) and value <= 1 else str(value)
