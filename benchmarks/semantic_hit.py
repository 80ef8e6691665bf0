"""Like questions answered from the cache, through the socket: latency and rate with 10,000 and 100,000 stored prompts
in one partition, what a miss pays for having looked, and the memory that all of it takes.

The prompts are put together from words, so that each has many neighbours that differ in one of them. Those that are
asked differ from a stored one in politeness, case or punctuation; those that miss differ in a word that matters.
"""

from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import CONNECTIONS, Client, LoadFailed, wrk
from benchmarks.machine import MIB, cpu_seconds, memory
from tests.support.product import Gateway, Project
from tests.support.semantic import wait_until_warm
from tests.support.waiting import wait_for

SIZES = (10_000, 100_000)
ASKED = 2_000
SECONDS = 4
ROUNDS = 3
_PATIENCE = 120.0
_NO_STORE = "Cache-Control: no-store"
_ROOM = {"WATCHLLM_SEMANTIC_MAX_PER_KEY": "200000", "WATCHLLM_SEMANTIC_MAX_PER_PROJECT": "200000"}
_ROOM["WATCHLLM_SEMANTIC_MAX_IN_MEMORY"] = "200000"

_VERBS = "reset|change|cancel|export|share|move|delete|restore|print|scan|encrypt|rename|merge|split|track|book"
_THINGS = (
    "password|invoice|calendar|photo|contract|playlist|budget|recipe|backup|domain|router|ticket|passport|lease|"
    "spreadsheet|database|certificate|mailbox|firewall|subscription|parcel|mortgage|visa|thermostat"
)
_PLACES = "phone|laptop|office|server|garden|kitchen|browser|account|warehouse|hotel|airport|school|clinic"
_COLOURS = "red|blue|green|black|white|yellow|brown|purple|orange|silver|golden|grey|pink|old|new|small|large"
_SYSTEM = "You are the assistant of a hardware shop. Answer in two sentences, and name the shelf."


def run(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    with bench.sim() as sim, bench.proxy(sim.base_url, environment=_ROOM, semantic="on") as (gateway, project):
        wait_until_warm(gateway)
        stored = 0
        for size in SIZES:
            _store(gateway, project, stored, size)
            stored = size
            rows += _hits(bench, gateway, project, size)
            rows += _misses(gateway, project, size)
            used = memory(gateway.process.pid)
            target = Target("≤", 180.0) if size == SIZES[0] else None
            rows.append(Row(f"memory, warm with {size:,} prompts, resident", used["Rss"] / MIB, "MiB", target=target))
            rows.append(Row(f"memory, warm with {size:,} prompts, anonymous", used["Anonymous"] / MIB, "MiB"))
        rows.append(_again(gateway, project))
    return rows


def _hits(bench: Bench, gateway: Gateway, project: Project, size: int) -> list[Row]:
    asked = [_body(like(text, number)) for number, text in enumerate(islice(_questions(), size))][:: size // ASKED]
    looking, client = Client(gateway.port, project.key, header=_NO_STORE), Client(gateway.port, project.key)
    # The graph of many vectors is built in the background, and until then the older ones of them are not found.
    wait_for(lambda: len(_found(looking, asked[:200])) >= 190, "like questions to be found", within=_PATIENCE)
    found = _found(looking, asked)
    seconds = _times(client, found)
    looking.close()
    client.close()
    file = _file(bench.folder / f"like-{size}", found)
    spent = cpu_seconds(gateway.process.pid)
    load = [wrk(bench.cores, gateway.port, file, project.key, seconds=SECONDS) for _ in range(ROUNDS)]
    spent = cpu_seconds(gateway.process.pid) - spent
    first = size == SIZES[0]
    return [
        Row(
            f"of {ASKED:,} like questions, found among {size:,}",
            len(found) / len(asked) * 100,
            "%",
            target=Target("≥", 99.0),
        ),
        Row(
            f"semantic hit among {size:,}, p50, one at a time",
            median(seconds) * 1e3,
            "ms",
            target=Target("≤", 1.0 if first else 2.0),
        ),
        Row(f"semantic hit among {size:,}, p99, one at a time", sorted(seconds)[len(seconds) * 99 // 100] * 1e3, "ms"),
        Row(
            f"semantic hits among {size:,}",
            median(result.per_second for result in load),
            "requests/s",
            target=Target("≥", 3_000.0) if first else None,
            note=f"{CONNECTIONS} connections, {ASKED:,} prompts in turn, one core each for server and load",
        ),
        Row(f"semantic hits among {size:,} in a second of CPU", sum(result.requests for result in load) / spent, ""),
    ]


def _misses(gateway: Gateway, project: Project, size: int) -> list[Row]:
    """By the proxy's own measure of the look-up, on requests that are not stored."""
    client = Client(gateway.port, project.key, header=_NO_STORE)
    looked = []
    for text in islice(_questions(), 0, size, size // ASKED):
        answer = client.post(_body(text.replace(" the ", " no ", 1).replace("How do I", "Why would I")))
        if answer.headers[b"x-watchllm-cache"] != b"MISS":
            raise LoadFailed("another question was answered from the cache")
        looked.append(_embed_ms(answer.headers[b"server-timing"]))
    client.close()
    ordered = sorted(looked)
    return [
        Row(f"a miss pays for having looked among {size:,}, p50", median(looked), "ms", target=Target("≤", 0.4)),
        Row(f"a miss pays for having looked among {size:,}, p99", ordered[len(ordered) * 99 // 100], "ms"),
        Row(f"longest look-up of {len(looked):,} among {size:,}", ordered[-1], "ms", target=Target("≤", 2.0)),
    ]


def _again(gateway: Gateway, project: Project) -> Row:
    """After a restart: exact hits while the large partition is read in a thread."""
    gateway.stop()
    again = wait_until_warm(gateway.installation.start_proxy(environment=_ROOM))
    stored = next(_questions())
    exact, asking = Client(again.port, project.key), Client(again.port, project.key, header=_NO_STORE)
    exact.post(_body(stored))
    times: list[float] = []
    while _kind(asking, _body(like(stored, 1))) != b"HIT-SEMANTIC":
        times += _times(exact, [_body(stored)] * 20)
        if len(times) > 200_000:
            raise LoadFailed("the partition was not read")
    quiet = sorted(_times(exact, [_body(stored)] * len(times)))
    exact.close()
    asking.close()
    again.stop()
    ordered = sorted(times)
    return Row(
        f"exact hit while {SIZES[-1]:,} prompts are read, p99.9",
        ordered[len(ordered) * 999 // 1000] * 1e3,
        "ms",
        quiet[len(quiet) * 999 // 1000] * 1e3,
        "ms when they were",
        note=f"of {len(times):,}; p50 {median(times) * 1e3:.2f} ms, longest {ordered[-1] * 1e3:.1f} ms",
    )


def like(text: str, number: int) -> str:
    """The same question, asked otherwise."""
    return _WAYS[number % len(_WAYS)](text)


_WAYS: tuple[Callable[[str], str], ...] = (
    lambda text: f"Please, {text[0].lower()}{text[1:]}",
    lambda text: text.lower().rstrip("?"),
    lambda text: f"{text} Thanks!",
    lambda text: text.replace("How do I", "How can I"),
)


def _questions() -> Iterator[str]:
    verbs, things, places, colours = (words.split("|") for words in (_VERBS, _THINGS, _PLACES, _COLOURS))
    for colour, place, thing, other, verb in product(colours, places, things, things[:5], verbs):
        if thing != other:
            yield f"How do I {verb} the {thing} and the {other} of the {colour} {place}?"


def _body(text: str) -> bytes:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
    return msgspec.json.encode({"model": "gpt-4o-mini", "messages": messages, "temperature": 0.2, "max_tokens": 120})


def _store(gateway: Gateway, project: Project, first: int, size: int) -> None:
    client = Client(gateway.port, project.key, header="X-WatchLLM-Cache: refresh")
    for text in islice(_questions(), first, size):
        client.post(_body(text))
    client.close()


def _found(client: Client, bodies: list[bytes]) -> list[bytes]:
    return [body for body in bodies if _kind(client, body) == b"HIT-SEMANTIC"]


def _kind(client: Client, body: bytes) -> bytes:
    return client.post(body).headers[b"x-watchllm-cache"]


def _times(client: Client, bodies: list[bytes]) -> list[float]:
    answers = (client.post(body) for body in bodies)
    return [answer.ended - answer.sent for answer in answers]


def _file(path: Path, bodies: list[bytes]) -> Path:
    path.write_bytes(b"".join(body + b"\n" for body in bodies))
    return path


def _embed_ms(timing: bytes) -> float:
    return float(timing.partition(b"embed;dur=")[2].partition(b",")[0])
