"""The other endpoints, the paths, the key and the record of what was received."""

import array
import base64
import hashlib
import math
from collections.abc import Callable
from typing import Any

import pytest


def embed(sim: Any, given: Any, **fields: Any) -> Any:
    return sim.call("/v1/embeddings", {"model": "text-embedding-3-small", "input": given, **fields}).json


def form(*parts: tuple[str, str, bytes]) -> tuple[dict[bytes, bytes], bytes]:
    """A multipart body of (name, filename or empty, data)."""
    body = b""
    for name, filename, data in parts:
        named = f'; filename="{filename}"' if filename else ""
        body += f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + data + b"\r\n"
    return {b"content-type": b"multipart/form-data; boundary=b"}, body + b"--b--\r\n"


def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone(sim: Any) -> None:
    one = embed(sim, "a")["data"][0]["embedding"]
    batch = [item["embedding"] for item in embed(sim, ["b", "a"])["data"]]
    assert len(one) == 1536
    assert math.isclose(math.hypot(*one), 1.0, rel_tol=1e-5)
    assert batch[1] == one
    assert batch[0] != one
    assert embed(sim, "a", model="other")["data"][0]["embedding"] != one


def test_base64_holds_the_same_floats(sim: Any) -> None:
    packed = embed(sim, "a", encoding_format="base64", dimensions=8)["data"][0]["embedding"]
    assert array.array("f", base64.b64decode(packed)).tolist() == embed(sim, "a", dimensions=8)["data"][0]["embedding"]


def test_token_arrays_are_counted_and_embedded(sim: Any) -> None:
    assert embed(sim, [1, 2, 3])["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert [item["index"] for item in embed(sim, [[1, 2], [3]])["data"]] == [0, 1]
    assert embed(sim, [1])["data"][0]["embedding"] != embed(sim, "[1]")["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ("", {}), ([], {}), ([""], {}), ([[]], {}), (5, {}), ([1.5], {}), (["a", 1], {}), ({"a": 1}, {}),
        (["a"] * 2049, {}), ("a", {"dimensions": 0}), ("a", {"dimensions": True}), ("a", {"encoding_format": "hex"}),
        (None, {}), ("a", {"model": None}),
    ],
)  # fmt: skip
def test_bad_embedding_requests_are_a_400(sim: Any, given: Any, fields: dict[str, Any]) -> None:
    exchange = sim.call("/v1/embeddings", {"model": "m", "input": given, **fields})
    assert exchange.status == 400
    assert exchange.json["error"]["type"] == "invalid_request_error"


def test_completions_answer_each_prompt_whole_and_streamed(sim: Any) -> None:
    asked = {"model": "gpt-3.5-turbo-instruct", "prompt": ["one", "two"], "n": 2, "max_tokens": 6, "logprobs": 2}
    body = sim.call("/v1/completions", asked).json
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["choices"][0]["finish_reason"] == "length"
    assert len({choice["text"] for choice in body["choices"]}) == 4
    assert "".join(body["choices"][0]["logprobs"]["tokens"]) == body["choices"][0]["text"]
    assert body["usage"]["completion_tokens"] == 24

    *events, usage, done = sim.call(
        "/v1/completions", {**asked, "stream": True, "stream_options": {"include_usage": True}}
    ).events
    assert done == "[DONE]"
    assert usage["usage"] == body["usage"]
    for index in range(4):
        pieces = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert "".join(piece["text"] for piece in pieces) == body["choices"][index]["text"]
        assert pieces[-1]["finish_reason"] == "length"
        offsets = [piece["logprobs"]["text_offset"][0] for piece in pieces[:-1]]
        assert offsets == body["choices"][index]["logprobs"]["text_offset"]
    echoed = sim.call("/v1/completions", {"model": "m", "prompt": "Say", "echo": True}).json
    assert echoed["choices"][0]["text"].startswith("Say")


def test_models_are_listed_and_any_name_can_be_asked_for(sim: Any) -> None:
    listed = [model["id"] for model in sim.call("/v1/models", method="GET").json["data"]]
    assert "echo" in listed
    assert sim.call("/v1/models/org%2Fsome-model", method="GET").json["id"] == "org/some-model"
    assert sim.call("/v1/models/sim/status-404", method="GET").status == 404


def test_uploads_speech_images_and_moderations_answer_in_kind(sim: Any) -> None:
    data = bytes(range(256)) * 40 + b"\r\n--not the boundary\r\n"
    headers, body = form(("model", "", b"whisper-1"), ("file", "talk.wav", data))
    text = sim.call("/v1/audio/transcriptions", body, headers=headers).json["text"]
    assert text == f"Transcript of talk.wav: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}."

    spoken = sim.call("/v1/audio/speech", {"model": "tts-1", "input": "hello", "voice": "alloy"})
    assert spoken.head_lines("content-type") == ["audio/mpeg"]
    with pytest.raises(UnicodeDecodeError):
        spoken.sent.decode()
    assert spoken.sent != sim.call("/v1/audio/speech", {"model": "tts-1", "input": "bye", "voice": "alloy"}).sent

    drawn = sim.call("/v1/images/generations", {"prompt": "a red dot", "n": 2}).json["data"]
    assert [base64.b64decode(item["b64_json"])[:8] for item in drawn] == [b"\x89PNG\r\n\x1a\n"] * 2

    results = sim.call("/v1/moderations", {"input": ["flowers", "violence"]}).json["results"]
    assert [result["flagged"] for result in results] == [False, True]


def test_files_keep_their_state_until_deleted(sim: Any) -> None:
    headers, body = form(("purpose", "", b"batch"), ("file", "a.jsonl", b"{}\n"))
    uploaded = sim.call("/v1/files", body, headers=headers).json
    path = f"/v1/files/{uploaded['id']}"
    assert sim.call(path, method="GET").json == uploaded
    assert sim.call(f"{path}/content", method="GET").sent == b"{}\n"
    assert sim.call("/v1/files", method="GET").json["data"] == [uploaded]
    assert sim.call(path, method="DELETE").json["deleted"] is True
    assert sim.call(path, method="GET").status == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"--b\r\n", b"--b\r\nno head end\r\n--b--", form(("model", "", b"m"))[1], form(("file", "f", b"x"))[1]],
)
def test_a_broken_or_incomplete_form_is_refused(sim: Any, body: bytes) -> None:
    exchange = sim.call("/v1/audio/transcriptions", body, headers={b"content-type": b"multipart/form-data; boundary=b"})
    assert exchange.status == 400
    assert sim.call("/v1/audio/transcriptions", body).status == 415


def test_paths_work_without_v1_and_unknown_ones_are_404_in_openais_form(sim: Any) -> None:
    assert sim.call("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "x"}]}).status == 200
    for target in ("/v1/nothing", "/", "/v1", "/v1/", "/v1/models/", "/v2/models", "/files/x/y"):
        exchange = sim.call(target, method="GET")
        assert exchange.status == 404, target
        assert exchange.json["error"]["type"] == "invalid_request_error"
    wrong = sim.call("/v1/chat/completions", method="GET")
    assert (wrong.status, wrong.json["error"]["code"]) == (405, "method_not_supported")


def test_a_required_key_is_required(make_sim: Callable[..., Any]) -> None:
    sim = make_sim(require_key="sk-right")
    statuses = {}
    for given in (b"Bearer sk-right", b"bearer sk-right", b"Bearer sk-wrong", b"sk-right", b"Bearer \xff", b""):
        statuses[given] = sim.call("/v1/models", method="GET", headers={b"authorization": given}).status
    assert list(statuses.values()) == [200, 200, 401, 401, 401, 401]
    assert sim.call("/v1/models", method="GET", headers={b"x-api-key": b"sk-right"}).status == 200
    refused = sim.call("/v1/models", method="GET", headers={b"authorization": b"Bearer sk-wrong"})
    assert refused.json["error"]["code"] == "invalid_api_key"


def test_what_was_received_can_be_read_back(make_sim: Callable[..., Any]) -> None:
    sim = make_sim(record=2)
    sim.chat("forgotten")
    sim.call("/v1/embeddings?api-version=1", {"model": "m", "input": "x"}, headers={b"authorization": b"Bearer k"})
    big = b"\xff" + b"x" * 100_000
    sim.call("/v1/completions", big)
    kept = sim.call("/sim/requests", method="GET").json["requests"]
    assert [(request["path"], request["status"]) for request in kept] == [
        ("/v1/embeddings", 200),
        ("/v1/completions", 400),
    ]
    assert kept[0]["headers"] == {"authorization": "Bearer k"}
    assert (kept[0]["query"], kept[0]["body"]) == ("api-version=1", '{"model": "m", "input": "x"}')
    assert (kept[1]["body_bytes"], kept[1]["truncated"]) == (len(big), True)
    assert kept[1]["body_sha256"] == hashlib.sha256(big).hexdigest()
    assert len(sim.call("/sim/requests?last=1", method="GET").json["requests"]) == 1


def test_calls_are_counted_until_a_reset_but_ids_go_on(sim: Any) -> None:
    first = sim.chat().json["id"]
    sim.call("/chat/completions", b"{}")
    sim.call("/v1/made-up-1", b"{}")
    sim.call("/v1/made-up-2", b"{}")
    stats = sim.stats()
    assert stats["calls"] == 4
    assert stats["by_path"] == {"/v1/chat/completions": 2, "unknown": 2}
    assert stats["errors"] == 3
    sim.call("/sim/reset")
    assert sim.stats()["calls"] == 0
    assert sim.call("/sim/requests", method="GET").json["requests"] == []
    assert sim.chat().json["id"] != first
    assert sim.call("/sim/other", method="GET").status == 404
