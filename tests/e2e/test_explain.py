"""`watchllm explain`: why a request was a hit or a miss."""

from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment


def test_a_hit_names_the_request_whose_answer_it_is(gateway: Gateway, project: Project) -> None:
    first = gateway.chat(project.key, "What is a mutex?")
    second = gateway.chat(project.key, "What is a mutex?")
    assert second.header("X-WatchLLM-Cache") == "HIT"
    told = gateway.explained(second)
    assert (told["outcome"], told["stored_by"]) == ("hit", first.header("X-Request-Id"))


def test_an_alias_is_said_with_the_model_that_it_led_to(gateway: Gateway, project: Project) -> None:
    gateway.installation.run("route", "set", "fast", "--project", project.id, "--to", "openai/gpt-4o-mini")
    answers = {
        name: gateway.chat(project.key, "What is a mutex?", model=name)
        for name in ("fast", "gpt-4o-mini", "openai/gpt-4o-mini")
    }
    assert [answer.header("X-WatchLLM-Cache") for answer in answers.values()] == ["MISS", "HIT", "HIT"]
    told = {name: gateway.explained(answer) for name, answer in answers.items()}
    assert {one["model"] for one in told.values()} == {"gpt-4o-mini"}
    assert [one["alias"] for one in told.values()] == ["fast", None, None]
    hit = gateway.chat(project.key, "What is a mutex?", model="fast")
    assert (gateway.explained(hit)["outcome"], gateway.explained(hit)["alias"]) == ("hit", "fast")
    said = gateway.installation.run("explain", hit.header("X-Request-Id") or "").stdout
    assert "hit (fast led to gpt-4o-mini)" in said


def test_a_miss_names_the_nearest_request_and_the_fields_that_differ(gateway: Gateway, project: Project) -> None:
    gateway.chat(project.key, "Something else entirely", seed=1, max_tokens=9)
    near = gateway.chat(project.key, "What is a mutex?", temperature=0.5)
    missed = gateway.chat(project.key, "What is a mutex?", temperature=0.7)
    told = gateway.explained(missed)
    assert told["outcome"] == "miss"
    assert told["nearest"] == near.header("X-Request-Id")
    assert told["differs_in"] == ["temperature"]
    assert "no answer" in told["reason"]


def test_a_differing_message_and_header_are_named(gateway: Gateway, project: Project) -> None:
    gateway.chat(project.key, "One")
    missed = gateway.chat(project.key, "Two", headers={"OpenAI-Beta": "x"})
    assert gateway.explained(missed)["differs_in"] == ["messages[0]", "openai-beta"]


def test_what_the_cache_was_not_asked_is_said(gateway: Gateway, project: Project) -> None:
    gateway.chat(project.key, "Again?")
    reasons = [
        gateway.explained(gateway.chat(project.key, "Again?", headers=headers, **fields))["reason"]
        for headers, fields in (
            ({"Cache-Control": "no-cache"}, {}),
            ({"X-WatchLLM-Cache": "off"}, {}),
            ({}, {"store": True}),
            ({"Cache-Control": "max-age=0"}, {}),
        )
    ]
    assert "not to read" in reasons[0]
    assert "left the cache out" in reasons[1]
    assert "store" in reasons[2]
    assert "max-age" in reasons[3] or "no answer" not in reasons[3]


def test_what_was_not_to_be_asked_upstream_is_a_miss_that_nothing_is_stored_for(
    gateway: Gateway, project: Project
) -> None:
    only = {"Cache-Control": "only-if-cached"}
    embedding = {"model": "text-embedding-3-small", "input": ["One", "Two"]}
    for answer in (
        gateway.chat(project.key, "Known?", headers=only),
        gateway.post("/v1/embeddings", project.key, embedding, headers=only),
    ):
        assert answer.status == 504
        told = gateway.explained(answer)
        assert (told["outcome"], told["entry"]) == ("miss", None)
        assert "stored" in told["reason"]
        assert "only-if-cached forbids to ask upstream" in told["reason"]


def test_a_request_that_the_cache_left_out_is_a_bypass(gateway: Gateway, project: Project) -> None:
    gateway.chat(project.key, "Stored")
    for headers, fields in (({"X-WatchLLM-Cache": "off"}, {}), ({}, {"store": True})):
        answer = gateway.chat(project.key, "Stored", headers=headers, **fields)
        assert answer.header("X-WatchLLM-Cache") == "BYPASS"
        assert gateway.explained(answer)["outcome"] == "bypass"
        said = gateway.installation.run("explain", answer.header("X-Request-Id") or "").stdout
        assert "bypass (gpt-4o-mini)" in said
        assert "nearest" not in said


def test_a_hit_is_not_said_to_be_stored_by_one_that_stored_nothing(gateway: Gateway, project: Project) -> None:
    first = gateway.chat(project.key, "Whose answer?")
    for headers in ({"X-WatchLLM-Cache": "off"}, {"Cache-Control": "no-cache, no-store"}):
        gateway.chat(project.key, "Whose answer?", headers=headers)
    hit = gateway.chat(project.key, "Whose answer?")
    assert gateway.explained(hit)["stored_by"] == first.header("X-Request-Id")


def test_a_hit_from_before_a_restart_can_be_the_nearest(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url)
    project = installation.project()
    before = installation.start_proxy()
    before.chat(project.key, "What is a mutex?", temperature=0.5)
    before.stop()
    after = installation.start_proxy()
    hit = after.chat(project.key, "What is a mutex?", temperature=0.5)
    assert hit.header("X-WatchLLM-Cache") == "HIT"
    told = after.explained(after.chat(project.key, "What is a mutex?", temperature=0.7))
    assert (told["nearest"], told["differs_in"]) == (hit.header("X-Request-Id"), ["temperature"])
    assert after.explained(hit)["outcome"] == "hit"
    assert after.explained(hit)["stored_by"] is None
    after.stop()


def test_another_projects_requests_are_never_the_nearest(gateway: Gateway, project: Project) -> None:
    stranger = gateway.installation.project("stranger")
    gateway.chat(stranger.key, "Shared words", temperature=0.1)
    missed = gateway.chat(project.key, "Shared words", temperature=0.2)
    assert gateway.explained(missed)["nearest"] is None


def test_embeddings_say_how_many_inputs_were_new(gateway: Gateway, project: Project) -> None:
    ask = {"model": "text-embedding-3-small", "input": ["a", "b", "c"]}
    missed = gateway.post("/v1/embeddings", project.key, ask)
    assert missed.status == 200
    assert gateway.explained(missed)["reason"].startswith("3 of 3")


def test_the_text_form_and_what_nobody_remembers(gateway: Gateway, project: Project) -> None:
    missed = gateway.chat(project.key, "In words")
    said = gateway.installation.run("explain", missed.header("X-Request-Id") or "").stdout
    assert "miss (gpt-4o-mini)" in said
    assert gateway.installation.run_json("explain", missed.header("X-Request-Id") or "") == gateway.explained(missed)
    unknown = gateway.installation.run("explain", "req_" + "0" * 32, check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "remembers" in unknown.stderr
    assert gateway.installation.run("explain", "nonsense", check=False).returncode == 2
