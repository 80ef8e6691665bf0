"""Fuzz: whatever bytes a connection brings, the server takes what another parser reads in them, or refuses and ends."""

import re
from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.e2e.test_bad_input import MALFORMED
from tests.unit.wire.test_repeated_heads import Bed, post

pytestmark = pytest.mark.fuzz

LINES = [
    *(b"Host: a", b"Content-Length: 0", b"Content-Length: 2", b"content-length: 3", b"Content-Length: +2"),
    *(b"Content-Length: 2, 2", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length:"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"transfer-encoding:\tChunked"),
    *(b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked, chunked"),
    *(b" folded", b"\tfolded", b"X: y", b"X:", b": y", b"nonsense", b"X: \x00", b"X: \xff", b"X: a\rb", b"X\x00: y"),
    *(
        b"Connection: close",
        b"Connection: keep-alive",
        b"Expect: 100-continue",
        b"Connection: upgrade",
        b"Upgrade: h2c",
    ),
]
BODIES = [
    *(
        b"",
        b"ab",
        b"0\r\n\r\n",
        b"2\r\nab\r\n0\r\n\r\n",
        b"2;x=y\r\nab\r\n0\r\nT: x\r\n\r\n",
        b"2\nab\n0\n\n",
        b"zz\r\n",
    ),
    *(
        b"-1\r\n",
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"2\r\nabcd\r\n0\r\n\r\n",
        b"02\r\nab\r\n000\r\n\r\n",
    ),
    *(b"2 \r\nab\r\n0\r\n\r\n", b"\r\n", b"\n"),
]
REQUEST_LINES = [
    *(
        b"POST /now HTTP/1.1",
        b"GET /now?a=b HTTP/1.1",
        b"POST /now HTTP/1.0",
        b"post /now HTTP/1.1",
        b"GET  /now HTTP/1.1",
    ),
    *(b"GET /now", b"GET /now HTTP/1.1 ", b"GET /n\x00w HTTP/1.1", b"GET /now HTTP/2.0", b"ABSURD /now HTTP/1.1", b" "),
]
Asked = tuple[bytes, bytes, bytes, bytes]
ends = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One request, right or wrong in one or several places."""
    lines = [draw(st.sampled_from([*REQUEST_LINES[:2] * 4, *REQUEST_LINES])), b"Host: a"]
    lines += draw(st.lists(st.sampled_from(LINES), max_size=4))
    head = b"".join([line + draw(ends) for line in lines])
    return head + draw(ends) + draw(st.sampled_from(BODIES))


@st.composite
def connections(draw: st.DrawFn) -> bytes:
    """Some requests, one after the other, maybe with a byte of them changed, added or lost."""
    valid = st.sampled_from([post(b"ab", path=b"/now"), b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"])
    data = b"".join(draw(st.lists(st.one_of(valid, messages()), min_size=1, max_size=4)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


@given(connections(), st.sets(st.integers(1, 400), max_size=8))
def test_what_is_taken_is_what_another_parser_reads_and_the_rest_is_refused(data: bytes, cuts: set[int]) -> None:
    taken, refused = served([data])
    event(f"taken: {len(taken)}, refused: {refused}")
    assert taken == read_by_h11(data)[: len(taken)]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    assert served([data[a:b] for a, b in pairwise(bounds)]) == (taken, refused)


# Which of two bounds is met first depends on the reads; that one is does not.
EITHER = {"endless trailers": {b"400", b"431"}, "endless chunk extension": {b"400", b"431"}}


@pytest.mark.parametrize("how", MALFORMED)
@given(st.data())
def test_what_is_malformed_is_refused_wherever_it_is_cut(how: str, data: st.DataObject) -> None:
    request = MALFORMED[how] + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    taken, whole = served([request])
    cuts = data.draw(st.sets(st.integers(1, len(request) - 1), max_size=5))
    cut_taken, cut = served([request[a:b] for a, b in pairwise([0, *sorted(cuts), len(request)])])
    assert taken == cut_taken == []
    assert cut is not None
    assert whole is not None
    assert {whole, cut} <= EITHER.get(how, {whole})


def served(reads: list[bytes]) -> tuple[list[Asked], bytes | None]:
    """Method, path, query and body of what reaches the handler; the status of the refusal, if there is one."""
    bed = Bed()
    for read in reads:
        bed.feed(read)
    bed.lose()
    log: list[Any] = [entry for entry in bed.log if isinstance(entry, tuple)]
    assert "reported" not in [entry[0] for entry in log]
    assert bed.log[-1] == ("lost", 0, 0)
    taken = [(method, path, query, body) for method, path, query, _, body, _ in requests_in(log)]
    names = [entry[0] for entry in log]
    if "refusal" not in names:
        return taken, None
    after = log[names.index("refusal") + 1 :]
    assert "request" not in [entry[0] for entry in after], "nothing is read behind what was refused"
    status: bytes = next(entry[1] for entry in after if entry[0] == "write").split(b" ")[1]
    assert status in (b"400", b"405", b"411", b"413", b"417", b"431", b"501", b"505")
    return taken, status


def requests_in(log: list[Any]) -> list[tuple[Any, ...]]:
    return [entry[1] for entry in log if entry[0] == "request"]


def read_by_h11(data: bytes) -> list[Asked]:
    """The complete requests in `data`, up to the first that is none."""
    found = []
    while data:
        parser = h11.Connection(h11.SERVER)
        # Blank lines ahead, and more spaces than one in a request line, are let pass (RFC 9112, 2.2 and 3).
        parser.receive_data(re.sub(rb"^[\r\n]*([A-Z]+) +([^ \r\n]+) *", rb"\1 \2 ", data))
        body = b""
        request = None
        try:
            while not isinstance(part := parser.next_event(), h11.EndOfMessage):
                if isinstance(part, h11.Request):
                    request = part
                elif isinstance(part, h11.Data):
                    body += part.data
                else:
                    return found
        except h11.RemoteProtocolError:
            return found
        assert request is not None
        found.append((request.method, *request.target.partition(b"?")[::2], body))
        data = parser.trailing_data[0]
    return found
