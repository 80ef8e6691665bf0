"""`watchllm cache import`: what is known already answers the next request, and nothing else is let in."""

import io
import json
import time
from typing import Any

import msgspec
import pytest

from tests.support.embeddings import MODEL as EMBEDDING_MODEL
from tests.support.embeddings import PATH as EMBEDDINGS
from tests.support.embeddings import cache_of
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from watchllm.compose.cache_import import Imported, Refused, import_answers

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}


def answer(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 2000, "total_tokens": 3000},
        **fields,
    }


def line(text: str = "What is known?", said: str = "This is.", **fields: Any) -> dict[str, Any]:
    return {"request": question(text), "response": answer(said), **fields}


def as_text(lines: list[Any]) -> str:
    return "".join(f"{one if type(one) is str else json.dumps(one)}\n" for one in lines)


def bring_in(installation: Installation, project: str, lines: list[Any], *options: str) -> Imported:
    """By the command, on its stdin; whatever its exit code."""
    done = installation.run(
        "cache", "import", "-", "--project", project, "--json", *options, stdin=as_text(lines), check=False
    )
    result = msgspec.json.decode(done.stdout, type=Imported)
    assert done.returncode == (1 if result.refused else 0), done.stderr
    return result


def take_in(installation: Installation, project: str, lines: list[Any], **bounds: int) -> Imported:
    """As the command does, in this process: its start takes a second."""
    configuration = msgspec.structs.replace(installation.configuration(), **bounds)
    told: list[Refused] = []
    result = import_answers(configuration, project, io.BytesIO(as_text(lines).encode()), told.append)
    assert len(told) == result.refused
    return result


def reasons(result: Imported) -> dict[int, str]:
    return {refused.line: refused.reason for refused in result.errors}


# --- the next request is a hit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        (CHAT, question("Moved over?", temperature=0.5)),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Moved over?"}),
        (MESSAGES, question("Moved over?", max_tokens=50)),
        (RESPONSES, {"model": "gpt-4o-mini", "input": "Moved over?"}),
        (EMBEDDINGS, {"model": EMBEDDING_MODEL, "input": ["moved " * 500, "over " * 700], "dimensions": 4}),
    ],
)
def test_what_was_bought_elsewhere_is_a_hit_here(
    gateway: Gateway, sim: Sim, project: Project, endpoint: str, asked: dict[str, Any]
) -> None:
    headers = {"anthropic-version": "2023-06-01"} if endpoint == MESSAGES else {}
    elsewhere = gateway.installation.project("elsewhere")
    bought = gateway.post(endpoint, elsewhere.key, asked, headers=headers)
    assert (bought.status, cache_of(bought)) == (200, "MISS")
    assert cache_of(gateway.post(endpoint, elsewhere.key, asked, headers=headers)) == "HIT"
    sim.reset()

    result = bring_in(
        gateway.installation, project.id, [{"request": asked, "response": bought.json(), "endpoint": endpoint}]
    )

    hit = gateway.post(endpoint, project.key, asked, headers=headers)
    assert (result.imported, result.refused, cache_of(hit)) == (1, 0, "HIT")
    # The answers of models are given as they are; a hit of embeddings has used no tokens.
    used = {"usage": hit.json()["usage"]} if endpoint == EMBEDDINGS else {}
    assert hit.json() == bought.json() | used
    assert hit.header("X-WatchLLM-Saved-USD") == bought.header("X-WatchLLM-Cost-USD") != "0.000000"
    assert hit.header("X-WatchLLM-Cost-USD") == "0.000000"
    assert sim.calls() == 0
    provider = result.providers[0]
    assert (provider.provider, provider.origin + "/v1", provider.answers) == ("openai", sim.base_url, 1)


def test_a_streamed_request_and_another_dialect_are_hits_too(gateway: Gateway, sim: Sim, project: Project) -> None:
    assert take_in(gateway.installation, project.id, [line("Streamed?", "Indeed so.")]).imported == 1

    streamed = gateway.chat(project.key, "Streamed?", stream=True)
    told = gateway.post(RESPONSES, project.key, {"model": "gpt-4o-mini", "input": "Streamed?"})

    assert (cache_of(streamed), cache_of(told)) == ("HIT", "HIT")
    pieces = [json.loads(event[6:]) for event in streamed.body.split(b"\n\n") if event.startswith(b"data: {")]
    written = [choice["delta"].get("content") or "" for piece in pieces for choice in piece["choices"]]
    assert "".join(written) == "Indeed so."
    assert streamed.body.rstrip().endswith(b"data: [DONE]")
    assert b"Indeed so." in told.body
    assert sim.calls() == 0


def test_a_proxy_that_starts_later_answers_from_it(installation: Installation, shared_sim: Sim) -> None:
    installation.environment.update(upstream_environment(shared_sim.base_url))
    project = installation.project()
    path = installation.home.with_name("known.jsonl")
    path.write_text(as_text([line("Before the start?"), "", line("A second?")]))

    done = installation.run("cache", "import", str(path), "--project", project.id)

    assert (done.stdout, done.stderr.splitlines()[0]) == ("", "2 imported, 0 refused")
    gateway = installation.start_proxy()
    assert cache_of(gateway.chat(project.key, "Before the start?")) == "HIT"
    assert cache_of(gateway.chat(project.key, "A second?")) == "HIT"


def test_embeddings_are_known_by_the_item(gateway: Gateway, sim: Sim, project: Project) -> None:
    asked = {"model": EMBEDDING_MODEL, "input": ["one", "two", "one"]}
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    ]
    known = {
        "request": asked,
        "response": {"object": "list", "data": data, "model": EMBEDDING_MODEL, "usage": {"prompt_tokens": 3}},
        "endpoint": EMBEDDINGS,
    }
    assert take_in(gateway.installation, project.id, [known]).imported == 1

    two = gateway.post(EMBEDDINGS, project.key, {"model": EMBEDDING_MODEL, "input": "two"})

    assert (cache_of(two), two.json()["data"][0]["embedding"]) == ("HIT", [3.0, 4.0])
    assert sim.calls() == 0


def test_it_is_the_projects_alone_and_of_its_live_keys(gateway: Gateway, project: Project) -> None:
    other = gateway.installation.project("other")
    test_key = gateway.installation.key(project.id, test=True)
    assert take_in(gateway.installation, project.id, [line("Whose?")]).imported == 1

    assert cache_of(gateway.chat(other.key, "Whose?")) == "MISS"
    assert cache_of(gateway.chat(test_key, "Whose?")) == "MISS"
    assert cache_of(gateway.chat(project.key, "Whose?")) == "HIT"


def test_a_users_answers_are_that_users(gateway: Gateway) -> None:
    project = gateway.installation.project("by user", settings={"cache_scope": "user"})

    def asked_by(user: str) -> str | None:
        headers = {"X-WatchLLM-User": user, "Cache-Control": "only-if-cached"}
        return cache_of(gateway.chat(project.key, "Mine?", headers=headers))

    result = take_in(gateway.installation, project.id, [line("Mine?", user="ann"), line("Mine?")])

    assert (result.imported, result.refused) == (1, 1)
    assert "name the 'user'" in reasons(result)[2]
    assert (asked_by("ann"), asked_by("bob")) == ("HIT", "MISS")


# --- how old it is, and how long it lasts --------------------------------------------------------------------------


def test_age_counts_from_when_it_was_created(gateway: Gateway, project: Project) -> None:
    created = int(time.time()) - 3600
    lines = [
        line("An hour old?", created=created),
        line("As text?", created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))),
        line("Too old?", created=created, ttl=1800),
        line("Older than the project's day?", created=created - 86_400, ttl=-1),
        line("Not yet?", created=created + 7200),
    ]

    result = take_in(gateway.installation, project.id, lines)

    assert (result.imported, sorted(reasons(result))) == (2, [3, 4, 5])
    assert "expired" in reasons(result)[3]
    assert "expired" in reasons(result)[4]
    assert "future" in reasons(result)[5]
    for text in ("An hour old?", "As text?"):
        hit = gateway.chat(project.key, text)
        assert (cache_of(hit), 3600 <= int(hit.header("X-WatchLLM-Cache-Age") or "") < 3700) == ("HIT", True)


def test_a_newer_answer_stays_and_an_older_one_goes(gateway: Gateway, project: Project) -> None:
    def said() -> Any:
        return gateway.chat(project.key, "Which?").json()["choices"][0]["message"]["content"]

    bought = said()
    older = take_in(gateway.installation, project.id, [line("Which?", "The old one.", created=time.time() - 60)])
    assert (older.imported, older.kept, older.refused, said()) == (0, 1, 0, bought)
    assert take_in(gateway.installation, project.id, [line("Which?", "The new one.")]).imported == 1
    assert said() == "The new one."


# --- what is refused -----------------------------------------------------------------------------------------------

REFUSED = [
    ("not JSON", "no line of the form"),
    ("[]", "no line of the form"),
    ({"request": question("?")}, "response"),
    (line(extra=1), "extra"),
    (line(endpoint="/v1/audio/speech"), "'endpoint' is one of"),
    (line(created="yesterday"), "'created' is epoch seconds"),
    (line(ttl="long"), "'ttl' is whole seconds"),
    (line(ttl=True), "'ttl' is whole seconds"),
    (line(ttl=-2), "-1 or more"),
    (line(ttl=0), "not to store"),
    (line(user="ann"), "cache_scope=user"),
    (line() | {"request": []}, "object"),
    ('{"request": {"model": "gpt-4o-mini", "model": "gpt-4o"}, "response": {}}', "repeats the key"),
    (line() | {"request": {"messages": []}}, "Name a model"),
    (line() | {"request": question("?", model="nobody/knows")}, "No provider 'nobody'"),
    (line() | {"request": question("?", model="claude-3-5-haiku-latest")}, "no provider key for anthropic"),
    (line() | {"request": question("?", store=True)}, "a request with store"),
    (line() | {"request": {"model": "gpt-4o-mini", "input": "?", "previous_response_id": "r"}, "endpoint": RESPONSES},
     "a request with previous_response_id"),
    (line() | {"response": None}, "not an object"),
    (line() | {"response": "data: {}\n\ndata: [DONE]\n\n"}, "not an object"),
    (line() | {"response": {"error": {"message": "no"}}}, "an error"),
    (line() | {"response": answer("")}, "empty"),
    (line() | {"response": answer("no", choices=[{"index": 0, "message": {"content": "n"}, "finish_reason": None}])},
     "no finish_reason"),
    (line() | {"response": answer("no", choices=[{"message": {"content": "n"}, "finish_reason": "content_filter"}])},
     "content_filter"),
    (line() | {"request": question("?", n=2)}, "choices are missing"),
    (line(endpoint=MESSAGES), "not a message"),
    ({"request": {"model": EMBEDDING_MODEL, "input": ["a", "b"]}, "endpoint": EMBEDDINGS,
      "response": {"data": [{"object": "embedding", "index": 0, "embedding": [1.0]}]}}, "one embedding"),
    ({"request": {"model": EMBEDDING_MODEL, "input": "a"}, "endpoint": EMBEDDINGS, "response": []}, "not JSON of"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "said"), REFUSED)
def test_a_bad_line_is_refused_and_the_rest_goes_on(gateway: Gateway, project: Project, bad: Any, said: str) -> None:
    result = take_in(gateway.installation, project.id, [line("First?"), bad, line("Third?")])

    assert (result.imported, result.refused, sorted(reasons(result))) == (2, 1, [2])
    assert said in reasons(result)[2]
    held = gateway.get("/v1/cache/stats", project.key).json()
    assert held["entries"] == 2


def test_every_refusal_is_told_and_the_first_are_listed(gateway: Gateway, project: Project) -> None:
    bad = ['{"request": 1, "\\u001b[31mred": 2}'] * 25
    done = gateway.installation.run(
        "cache", "import", "-", "--project", project.id, "--json", stdin=as_text([*bad, line()]), check=False
    )

    result = json.loads(done.stdout)
    assert done.returncode == 1
    assert (result["imported"], result["refused"]) == (1, 25)
    assert [error["line"] for error in result["errors"]] == list(range(1, 21))
    assert [text.partition(":")[0] for text in done.stderr.splitlines()] == [f"line {n}" for n in range(1, 26)]
    # What a file holds does not move a terminal's cursor.
    assert "unknown field `[31mred`" in result["errors"][0]["reason"]


def test_a_dry_run_stores_nothing(gateway: Gateway, project: Project) -> None:
    result = bring_in(gateway.installation, project.id, [line("Dry?"), "bad"], "--dry-run")

    assert (result.dry_run, result.imported, result.refused) == (True, 1, 1)
    assert gateway.get("/v1/cache/stats", project.key).json()["entries"] == 0
    assert cache_of(gateway.chat(project.key, "Dry?")) == "MISS"


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"cache": "off"}, "cache=off"), ({"cache_ttl": "0", "cache_ttl_embeddings": "0"}, "cache_ttl_embeddings are 0")],
)
def test_a_project_that_keeps_nothing_says_so(gateway: Gateway, settings: dict[str, str], said: str) -> None:
    project = gateway.installation.project("keeps nothing", settings=settings)
    done = gateway.installation.run(
        "cache", "import", "-", "--project", project.id, "--json", stdin=as_text([line()]), check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_a_kind_that_the_project_does_not_keep_is_refused(gateway: Gateway) -> None:
    project = gateway.installation.project("keeps embeddings", settings={"cache_ttl": "0"})
    assert "time to live of 0" in reasons(take_in(gateway.installation, project.id, [line()]))[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-", "--project", "prj_unknown"], 1, "no project has the id"),
        (["-"], 2, "--project"),
        (["no-such-file", "--project", "p"], 2, "No such file"),
        ([".", "--project", "p"], 2, "Is a directory"),
    ],
)
def test_what_fails_says_so(gateway: Gateway, arguments: list[str], code: int, said: str) -> None:
    done = gateway.installation.run("cache", "import", *arguments, "--json", check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


# --- bounds --------------------------------------------------------------------------------------------------------


def test_a_line_that_is_too_long_is_passed_over(gateway: Gateway, project: Project) -> None:
    fits = json.dumps(line("Fits?"))
    lines = [fits + " " * (2000 - len(fits)), line("Long?", "x" * 9000), fits + " " * (2001 - len(fits)), line("Last?")]

    result = take_in(gateway.installation, project.id, lines, max_body_bytes=2000)

    assert (result.imported, sorted(reasons(result))) == (2, [2, 3])
    assert "longer than 2000 bytes" in reasons(result)[2]
    assert cache_of(gateway.chat(project.key, "Last?")) == "HIT"


def test_the_caches_own_bounds_hold(installation: Installation, shared_sim: Sim) -> None:
    installation.environment.update(upstream_environment(shared_sim.base_url))
    project = installation.project()
    lines = [line("Large?", "x" * 70_000), *(line(f"{number}?", "x" * 30_000) for number in range(60))]

    result = take_in(installation, project.id, lines, cache_max_bytes=1 << 20)

    assert "keeps up to 65536" in reasons(result)[1]
    # Of one batch, those that made room for later ones were never there for anybody.
    assert result.imported + result.refused == 61
    assert 0 < result.imported <= (1 << 20) // 30_000
    assert result.evicted > 0


class _Interrupted(io.BytesIO):
    """A file during whose reading something happens, before its last line."""

    def __init__(self, lines: list[Any], happens: Any) -> None:
        super().__init__(as_text(lines).encode())
        self._happens = happens
        self._left = len(lines)

    def readline(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left == 0:
            self._happens()
        return super().readline(size)


def test_what_is_purged_meanwhile_is_not_brought_in(gateway: Gateway, project: Project) -> None:
    def purge() -> None:
        gateway.installation.run("cache", "purge", "--project", project.id)

    lines = [line("Before?"), line("After?")]
    result = import_answers(
        gateway.installation.configuration(), project.id, _Interrupted(lines, purge), lambda refused: None
    )

    assert (result.imported, result.refused) == (0, 2)
    assert "invalidated" in reasons(result)[1]
    for text in ("Before?", "After?"):
        assert cache_of(gateway.chat(project.key, text)) == "MISS"
    # What is brought in after it is kept.
    assert take_in(gateway.installation, project.id, [line("Later?", created=time.time() - 3600)]).imported == 1
    assert cache_of(gateway.chat(project.key, "Later?")) == "HIT"
