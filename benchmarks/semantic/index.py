"""Embedding prompts and finding the nearest of many: how long it takes, how often it is right, and what it delays.

The prompts are put together from words; the asked ones vary stored ones, as a question asked again does. "Delay" is how
late an event loop is that searches with each 1 ms timer while a merge runs in its thread, with the interpreter's switch
interval that the proxy sets: on a machine whose cores are taken it mostly shows how long the scheduler lets others run.
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy
from numpy.typing import NDArray

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from watchllm.cache.semantic.index import CROSSOVER, Index
from watchllm.cache.semantic.segments import ExactSegment, GraphSegment
from watchllm.cache.semantic.static import StaticEmbedder
from watchllm.proxy.semantic.warming import SWITCH_SECONDS

SIZES = (1_000, 10_000, 100_000)
CROSSOVER_SIZES = (1_024, 2_048, 4_096, 8_192, 16_384)
ASKED = 500
NEAREST = 8

_VERBS = "reset|change|cancel|export|share|move|delete|restore|print|scan|encrypt|rename|merge|split|track|book"
_THINGS = (
    "password|invoice|calendar|photo|contract|playlist|budget|recipe|backup|domain|router|ticket|passport|lease|"
    "spreadsheet|database|certificate|mailbox|firewall|subscription|parcel|mortgage|visa|thermostat"
)
_PLACES = "phone|laptop|office|server|garden|kitchen|browser|account|warehouse|hotel|airport|school|clinic"
_TIMES = "tomorrow|tonight|before Monday|after the update|without an account|in two steps|on a slow line|for my team"
_ASKING = ("How do I", "What is the best way to", "Please tell me how to", "Can I", "Why would somebody", "Help me")
_FILLERS = ("please", "thanks", "exactly", "quickly", "again")

Vectors = NDArray[numpy.float32]
_T = TypeVar("_T")


def run(bench: Bench) -> list[Row]:
    return measure()


def measure() -> list[Row]:
    sys.setswitchinterval(SWITCH_SECONDS)
    choose = random.Random(1)
    began = time.perf_counter()
    embedder = StaticEmbedder.load()
    load_seconds = time.perf_counter() - began
    prompts = _prompts(choose, max(SIZES))
    stored = embedder.embed(prompts)
    asked_prompts = [_varied(choose, prompt) for prompt in choose.sample(prompts[: min(SIZES)], ASKED)]
    asked = embedder.embed(asked_prompts)
    rows = [
        Row("load the static embedder", load_seconds * 1e3, "ms"),
        Row(
            "embed a prompt of 90 characters",
            _median(lambda text: embedder.embed([text]), asked_prompts) * 1e6,
            "µs",
            target=Target("≤", 100),
        ),
        Row("embed 1 MB, the worst of three kinds", _worst_prompt(embedder) * 1e6, "µs", target=Target("≤", 2_000)),
    ]
    rows += _crossover(stored, asked)
    for size in SIZES:
        rows += _index(stored[:size], asked)
    return rows


def _index(stored: Vectors, asked: Vectors) -> list[Row]:
    size = len(stored)
    label = f"{size:,} vectors"
    with ThreadPoolExecutor(1) as executor:
        index = Index(stored.shape[1], max_entries=2 * size, background=executor.submit)
        began = time.perf_counter()
        for number, vector in enumerate(stored):
            index.add(number.to_bytes(32, "big"), vector)
        add_seconds = (time.perf_counter() - began) / size
        delays = asyncio.run(_delays(index, asked, lambda count: not index.is_settled))
        settled_seconds = time.perf_counter() - began
    quiet = asyncio.run(_delays(index, asked, lambda count: count < 1_000))
    nearest = (asked @ stored.T).max(1)
    right = sum(
        # Two stored prompts may be alike: what counts is that none is nearer. float16 keeps three decimals.
        index.search(vector, NEAREST)[0][0] >= best - 1e-3
        for vector, best in zip(asked, nearest, strict=True)
    )
    latency = _median(lambda vector: index.search(vector, NEAREST), list(asked))
    rows = [
        Row(f"search {label}", latency * 1e6, "µs", target=Target("≤", 400)),
        Row(f"recall@1 of {label}", right / len(asked), "", target=Target("≥", 0.99)),
        Row(f"add to {label}", add_seconds * 1e6, "µs"),
        Row(f"bytes a vector at {label}", index.nbytes / size, "B"),
    ]
    if delays:
        rows += [
            Row(f"all of {label} searchable after", settled_seconds, "s"),
            *(
                Row(
                    f"delay of the loop while {label} merge, {name}",
                    _quantile(delays, share) * 1e3,
                    "ms",
                    _quantile(quiet, share) * 1e3,
                    "ms when nothing merges",
                    Target("≤", 2),
                )
                for name, share in (("p50", 0.5), ("p99", 0.99))
            ),
        ]
    return rows


async def _delays(index: Index, asked: Vectors, go_on: Callable[[int], bool]) -> list[float]:
    delays: list[float] = []
    while go_on(len(delays)):
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        index.search(asked[len(delays) % len(asked)], NEAREST)
        delays.append(time.perf_counter() - due)
    return delays


def _crossover(stored: Vectors, asked: Vectors) -> list[Row]:
    """The first size at which the graph is the quicker, and both at the one that is configured."""
    found = None
    rows = []
    for size in CROSSOVER_SIZES:
        vectors, serials = stored[:size].copy(), numpy.arange(size)
        dimensions, content = vectors.shape[1], [(vectors, serials)]
        exact, graph = ExactSegment.of(dimensions, size, content), GraphSegment.build(dimensions, content)
        exact_seconds, graph_seconds = (
            _median(lambda vector, part=part: part.search(vector, NEAREST), list(asked))  # type: ignore[misc]
            for part in (exact, graph)
        )
        if found is None and graph_seconds < exact_seconds:
            found = size
        if size == CROSSOVER:
            rows.append(
                Row(f"graph of {size:,}, the crossover", graph_seconds * 1e6, "µs", exact_seconds * 1e6, "µs exact")
            )
    rows.append(Row("rows from which a graph is quicker, measured", found or float("inf"), "", CROSSOVER, "configured"))
    return rows


def _worst_prompt(embedder: StaticEmbedder) -> float:
    hostile = ("a" * 1_000_000, "🙂" * 250_000, "word " * 200_000)
    return max(_median(lambda text: embedder.embed([text]), [text] * 50) for text in hostile)


def _prompts(choose: random.Random, count: int) -> list[str]:
    verbs, things, places, times = (words.split("|") for words in (_VERBS, _THINGS, _PLACES, _TIMES))
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        words = (choose.choice(_ASKING), choose.choice(verbs), "the", choose.choice(things), "and the")
        rest = (choose.choice(things), "in the", choose.choice(places), choose.choice(times), "?")
        prompts[" ".join((*words, *rest))] = None
    return list(prompts)


def _varied(choose: random.Random, prompt: str) -> str:
    words = prompt.split(" ")
    words.insert(choose.randrange(len(words)), choose.choice(_FILLERS))
    return " ".join(words).replace("the ", "", 1)


def _median(call: Callable[[_T], object], values: list[_T]) -> float:
    seconds = []
    for value in values:
        began = time.perf_counter()
        call(value)
        seconds.append(time.perf_counter() - began)
    return _quantile(seconds, 0.5)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
