"""What an answer cites: the documents that were sent with citations enabled, or a web page when a knob asks for one."""

import base64
from collections.abc import Iterator
from typing import Any

from watchllm.sim.citation import CITED_TEXT, CITED_TITLE, CITED_URL
from watchllm.sim.knobs import Knobs

_CITED_CHARACTERS = 60


def cites(fields: dict[str, Any]) -> bool:
    """Whether a document of the request has citations enabled."""
    return any(_enabled(document) for document in _documents(fields))


def citations_of(fields: dict[str, Any], knobs: Knobs) -> list[dict[str, Any]]:
    """One citation for each document with citations enabled, in the form that its kind of source has."""
    found = [_citation(index, document) for index, document in enumerate(_documents(fields)) if _enabled(document)]
    if knobs.cite:
        found.append(
            {
                "type": "web_search_result_location",
                "cited_text": CITED_TEXT,
                "encrypted_index": base64.b64encode(b"simulated").decode(),
                "title": CITED_TITLE,
                "url": CITED_URL,
            }
        )
    return found


def _documents(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in fields["messages"]:
        if isinstance(message["content"], list):
            yield from (block for block in message["content"] if block["type"] == "document")


def _enabled(document: dict[str, Any]) -> bool:
    return bool((document.get("citations") or {}).get("enabled"))


def _citation(index: int, document: dict[str, Any]) -> dict[str, Any]:
    source = document["source"]
    kind = source.get("type")
    about = {"document_index": index, "document_title": document.get("title"), "file_id": None}
    if kind == "text":
        cited = str(source.get("data"))[:_CITED_CHARACTERS]
        place = {"type": "char_location", "start_char_index": 0, "end_char_index": len(cited)}
        return {**place, "cited_text": cited, **about}
    if kind == "content":
        content = source.get("content")
        first = content[0].get("text", "") if isinstance(content, list) and content else str(content)
        return {
            "type": "content_block_location",
            "start_block_index": 0,
            "end_block_index": 1,
            "cited_text": first,
            **about,
        }
    # The pages of a PDF are not read here, so what is cited of them says so.
    return {
        "type": "page_location",
        "start_page_number": 1,
        "end_page_number": 2,
        "cited_text": "The first page.",
        **about,
    }
