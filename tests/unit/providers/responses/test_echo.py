"""The labels of a request are told to itself alone."""

import json
from typing import Any

from watchllm.providers.responses.echo import labelled, labels_of

MINE: dict[str, Any] = {"metadata": {"who": "me"}, "user": "me", "safety_identifier": "m", "prompt_cache_key": "k"}
NONE: dict[str, Any] = {"metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None}


def test_anothers_labels_give_way_to_ones_own() -> None:
    response = {"id": "resp_1", **MINE, "output": [{"metadata": {"kept": 1}}], "temperature": 1.0}
    told = labelled(json.dumps(response).encode(), {"metadata": {"who": "you"}, "user": None})
    assert json.loads(told) == response | NONE | {"metadata": {"who": "you"}}
    assert list(json.loads(told)) == list(response)
    assert json.loads(labelled(told, MINE)) == response


def test_what_is_right_already_stays_as_it_is_and_what_is_not_repeated_is_not_made_up() -> None:
    for response in (b'{ "id": "resp_1",  "metadata": {}, "user": null }', b'{ "id": "resp_1" }'):
        assert labelled(response, {}) == response
    assert labelled(b'{ "id": "resp_1" }', MINE) == b'{ "id": "resp_1" }'


def test_requests_are_told_apart_by_their_labels_alone() -> None:
    def of(fields: dict[str, Any]) -> bytes:
        return labels_of(json.dumps({"model": "m"} | fields).encode())

    assert of({}) == of({"metadata": {}, "user": None}) == of({"input": '"user"'}) == b""
    assert of(MINE) == of(dict(reversed(MINE.items()))) == of(MINE | {"input": "x"}) != b""
    for field in MINE:
        assert of(MINE | {field: None}) != of(MINE)
    assert labels_of(b'{"\\u0075ser":"me"}') == of({"user": "me"})
