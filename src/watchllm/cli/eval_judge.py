"""`watchllm eval --judge`: who decides the pairs that the engine is in doubt about, and by how much that pays."""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import typer

from watchllm.cli.price_book import price_book

if TYPE_CHECKING:
    from watchllm.cache.semantic.evaluate import Judged, Opinion, Pair

PERFECT: Final = "sim/judge"
"""The judge without fault: nobody is asked, the labels are what it knows."""
_TIMEOUT: Final = 30.0
_VERDICT_TOKENS: Final = 1


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    """What is read of a judge's answer; `document` is all of it."""

    usage: _Usage
    document: Any = None

    @classmethod
    def of(cls, body: bytes) -> "_Reply":
        """Raises msgspec.DecodeError for what is no chat completion with its usage."""
        reply = msgspec.json.decode(body, type=cls)
        reply.document = msgspec.json.decode(body)
        return reply


class JudgeOptions(NamedTuple):
    """As the command's options have them; `main` is the call upstream that a hit saves."""

    model: str
    url: str | None
    key_env: str
    judge_ms: float
    judge_usd: float | None
    main_ms: float
    main_usd: float | None
    main_model: str
    main_tokens: int


def ask_of(options: JudgeOptions) -> "Callable[[Pair], Opinion]":
    """What asks the judge about a pair."""
    if options.model == PERFECT:
        return lambda pair: _by_label(pair, options)
    key = os.environ.get(options.key_env)
    if not key:
        raise typer.BadParameter(
            f"a judge other than {PERFECT} is asked through a gateway: put a project key into {options.key_env}",
            param_hint="--judge",
        )
    base_url = (options.url or _own_gateway()).rstrip("/")
    if not base_url.startswith(("http://", "https://")) or not base_url.endswith("/v1"):
        raise typer.BadParameter(
            "expected a gateway's http(s) URL with /v1 at its end, such as http://127.0.0.1:8787/v1",
            param_hint="--judge-url",
        )
    return lambda pair: _through_gateway(pair, options, f"{base_url}/chat/completions", key)


def worth(judged: "Sequence[Judged]", options: JudgeOptions) -> dict[str, Any]:
    """What a judge was asked, how often it was right, what that costs, and what an asked pair saves of the call whose
    answer a yes makes unnecessary: negative = it costs more than it saves. Times in milliseconds, money in USD."""
    asked = [(one, one.opinion) for one in judged if one.opinion is not None]
    labelled = [(one.pair.label, opinion.verdict) for one, opinion in asked if one.pair.label is not None]
    count = len(asked)
    yes = sum(opinion.verdict is True for _, opinion in asked)
    price = price_book()
    costs = [_judge_cost(opinion, options, price) for _, opinion in asked]
    cost = None if None in costs else sum(filter(None, costs))
    mains = [_main_cost(one.pair, options, price) for one, opinion in asked if opinion.verdict is True]
    saved = None if None in mains else sum(filter(None, mains))
    spent_ms = sum(opinion.seconds for _, opinion in asked) * 1e3
    return {
        "model": options.model,
        "asked": count,
        "asked_share": _rounded(count / len(judged)) if judged else None,
        "yes": yes,
        "unclear": sum(opinion.verdict is None for _, opinion in asked),
        "wrong_yes": sum(label == 0 and verdict is True for label, verdict in labelled),
        "missed_yes": sum(label == 1 and verdict is not True for label, verdict in labelled),
        "cost_usd": _rounded(cost),
        "saved_usd": _rounded(saved),
        "saved_usd_per_asked": _rounded((saved - cost) / count)
        if count and saved is not None and cost is not None
        else None,
        "ms_per_asked": round(spent_ms / count, 1) if count else None,
        "saved_ms_per_asked": round((yes * options.main_ms - spent_ms) / count, 1) if count else None,
    }


def _by_label(pair: "Pair", options: JudgeOptions) -> "Opinion":
    from watchllm.cache.semantic.evaluate import Opinion
    from watchllm.cache.semantic.judge import request_for
    from watchllm.providers.tokens import estimate_request

    tokens = estimate_request(request_for(PERFECT, pair.a, pair.b, None))
    verdict = None if pair.label is None else pair.label == 1
    return Opinion(verdict, options.judge_ms / 1e3, (tokens, _VERDICT_TOKENS))


def _through_gateway(pair: "Pair", options: JudgeOptions, url: str, key: str) -> "Opinion":
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    from watchllm.cache.semantic.evaluate import Opinion
    from watchllm.cache.semantic.judge import request_for, verdict_of

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "X-WatchLLM-Cache": "off"}
    body = msgspec.json.encode(request_for(options.model, pair.a, pair.b, None))
    began = time.perf_counter()
    try:
        with urlopen(Request(url, body, headers), timeout=_TIMEOUT) as answer:  # noqa: S310  (its scheme was checked)
            reply = _Reply.of(answer.read())
    except (URLError, OSError, msgspec.DecodeError) as error:
        typer.echo(f"watchllm: the judge could not be asked about {pair.id}: {error}", err=True)
        raise typer.Exit(1) from None
    seconds = time.perf_counter() - began
    return Opinion(verdict_of(reply.document), seconds, (reply.usage.prompt_tokens, reply.usage.completion_tokens))


def _judge_cost(opinion: "Opinion", options: JudgeOptions, price: Callable[..., float | None]) -> float | None:
    if options.judge_usd is not None:
        return options.judge_usd
    return 0.0 if options.model.startswith("sim/") else price(options.model, opinion.tokens)


def _main_cost(pair: "Pair", options: JudgeOptions, price: Callable[..., float | None]) -> float | None:
    from watchllm.providers.tokens import estimate

    if options.main_usd is not None:
        return options.main_usd
    return price(options.main_model, (estimate(pair.b), options.main_tokens))


def _own_gateway() -> str:
    from watchllm.cli.session import configuration

    return f"http://127.0.0.1:{configuration().proxy_port}/v1"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 8)
