"""`watchllm eval`: the semantic cache judged on pairs of prompts, before anybody relies on it."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from watchllm.cli.eval_cross_encoder import Reader, reader_of, said
from watchllm.cli.eval_judge import PERFECT, JudgeOptions, ask_of, worth
from watchllm.cli.output import JSON, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from watchllm.cache.semantic.decide import Policy
    from watchllm.cache.semantic.evaluate import Judged


class _WithJudge(TyperCommand):
    """Takes `--judge` without a model, too, which Typer's options cannot."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        following = pairwise([*args, "--"])
        named = [
            f"{argument}={PERFECT}"
            if argument == "--judge" and (after[:1] == "-" or after.endswith(".jsonl"))
            else argument
            for argument, after in following
        ]
        return super().parse_args(ctx, named)


def register(app: typer.Typer) -> None:
    app.command("eval", cls=_WithJudge)(evaluate)


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
    cross_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME", help="Have a cross-encoder decide where the engine is in doubt, before any judge."
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="SLOPE,INTERCEPT", help="What its numbers are worth; the default is what is configured."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="[MODEL]",
            help="Have a judge decide where the engine is in doubt; without a model (or with sim/judge) the labels do, "
            "and nobody is asked.",
        ),
    ] = None,
    judge_url: Annotated[
        str | None,
        typer.Option(help="The gateway that the judge is asked through, with /v1; the default is this host's proxy."),
    ] = None,
    judge_key_env: Annotated[
        str, typer.Option(help="The environment variable with a project key for it.")
    ] = "WATCHLLM_API_KEY",
    judge_ms: Annotated[float, typer.Option(min=0.0, help="How long a judge takes that is not really asked.")] = 200.0,
    judge_usd: Annotated[
        float | None, typer.Option(min=0.0, help="What a judge's call costs; the default is the price book's.")
    ] = None,
    main_ms: Annotated[float, typer.Option(min=0.0, help="How long the call takes that a hit saves.")] = 2000.0,
    main_usd: Annotated[float | None, typer.Option(min=0.0, help="What it costs.")] = None,
    main_model: Annotated[
        str, typer.Option(help="Where that is not given: its model, whose price the price book has.")
    ] = "gpt-4o",
    main_tokens: Annotated[int, typer.Option(min=0, help="And the tokens of an answer of it.")] = 300,
    as_json: bool = JSON,
) -> None:
    """Judge the semantic cache on pairs of prompts: whether the answer to a would be served for b.

    Each pair is decided by itself, with no history and no server. With a label (1 = serving is right, 0 = it is not)
    and a capability on the lines, rates are told by capability.

    With --log, the requests of a log (bodies as OpenAI takes them, or {"prompt"}; with time, cost in USD and usage
    where they are known) go through an empty cache, and every pair is printed that it would have served.

    With --judge, pairs in the grey zone are decided by a judge, and it is told by how much that pays.
    """
    from watchllm.cache.semantic.decide import DEFAULT_MIN_CONFIDENCE, Policy
    from watchllm.cli.eval_log import replay_log

    policy = Policy(DEFAULT_MIN_CONFIDENCE if min_confidence is None else min_confidence, similarity_threshold)
    if (pairs is None) == (log is None):
        raise typer.BadParameter("give a file of pairs, or --log and a file of requests")
    options = None
    if judge is not None:
        options = JudgeOptions(
            judge, judge_url, judge_key_env, judge_ms, judge_usd, main_ms, main_usd, main_model, main_tokens
        )
    if calibration is not None and cross_encoder is None:
        raise typer.BadParameter("is that of a --cross-encoder", param_hint="--calibration")
    if log is not None:
        if judge is not None:
            raise typer.BadParameter("a log has no labels and no answers to judge by: --judge takes a file of pairs")
        if cross_encoder is not None:
            raise typer.BadParameter("a log has no labels to judge by: --cross-encoder takes a file of pairs")
        replay_log(log, policy, ttl, as_json=as_json)
    elif pairs is not None:
        reader = None if cross_encoder is None else reader_of(cross_encoder, calibration)
        _judge_pairs(pairs, policy, reader, options, as_json=as_json)


def _judge_pairs(
    pairs: Path, policy: "Policy", reader: Reader | None, options: JudgeOptions | None, *, as_json: bool
) -> None:
    from watchllm.cache.semantic.evaluate import BadPair, consult, judge, read_across, read_pairs, summary
    from watchllm.cache.semantic.static import StaticEmbedder

    try:
        with pairs.open("rb") as lines:
            deciding = judge(read_pairs(lines), StaticEmbedder.load(), policy)
            if reader is not None:
                deciding = read_across(deciding, policy, reader.logit, reader.calibration)
            judged = list(deciding if options is None else consult(deciding, policy, ask_of(options)))
    except BadPair as error:
        raise typer.BadParameter(str(error), param_hint=str(pairs)) from None
    rows = summary(judged, policy)
    asked: dict[str, dict[str, Any]] = {}
    if reader is not None:
        asked["cross_encoder"] = said(judged, reader)
    if options is not None:
        asked["judge"] = worth(judged, options)
    if as_json:
        print_json({"decisions": [_as_data(one) for one in judged], "summary": rows} | asked)
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
    for fields in asked.values() if judged else ():
        print_fields(fields)


def _as_data(one: "Judged") -> dict[str, Any]:
    decision = one.decision
    told: dict[str, Any] = {}
    if one.reading is not None:
        told["logit"] = None if one.reading.logit is None else round(one.reading.logit, 4)
    if one.opinion is not None:
        told["judge"] = one.opinion.verdict
    return {
        "id": one.pair.id,
        "similarity": round(decision.similarity, 4),
        "confidence": round(decision.confidence, 4),
        "hit": decision.hit,
        "guard": decision.guard,
        **told,
    }


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return "–".join(f"{share:.1%}" for share in value)
    return f"{value:.1%}" if isinstance(value, float) and value <= 1 else str(value)
