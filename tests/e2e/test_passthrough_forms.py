"""Forms of projects that may use some models only: they go up as they came, and name one allowed model, read alike by
all."""

import gzip
import hashlib

import pytest

from tests.e2e.test_passthrough import MIB, SECRET, error_of, form
from tests.e2e.test_passthrough_models import chunked
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.waiting import wait_for

TRANSCRIPTIONS = "/v1/audio/transcriptions"


def upload(gateway: Gateway, key: str, body: bytes, content_type: str = "multipart/form-data") -> RawResponse:
    if content_type == "multipart/form-data":
        content_type += "; boundary=frontier"
    head = (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with RawConnection(gateway.port, timeout=30) as connection:
        connection.send(head.encode())
        connection.send(body)
        return connection.response(b"POST")


@pytest.mark.parametrize("size", [0, 70_000, 3 * MIB])
def test_a_form_with_an_allowed_model_arrives_byte_for_byte(gateway: Gateway, sim: Sim, size: int) -> None:
    project = gateway.installation.project("allowed", settings={"allowed_models": "whisper-*"})
    content = hashlib.shake_128(b"%d" % size).digest(size)
    body = form(content)
    by_chunks = chunked(gateway, project.key, TRANSCRIPTIONS, body, 'multipart/form-data; boundary="frontier"')
    for answer in (upload(gateway, project.key, body), by_chunks):
        assert answer.status == 200, answer
        assert hashlib.sha256(content).hexdigest() in answer.json()["text"]
        assert answer.header("X-WatchLLM-Model") == "whisper-1"


PART = b'--frontier\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
FILE = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n'
END = b"--frontier--\r\n"


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (form(b"sound"), (403, "model_not_allowed")),
        (FILE % (b"a.wav", bytes(MIB)) + PART % (b"model", b"tts-1") + END, (403, "model_not_allowed")),
        (FILE % (b"a.wav", b"") + END, (403, "model_not_allowed")),
        (PART % (b"model", b"tts-1") + PART % (b"model", b"whisper-1") + END, (400, "invalid_request")),
        (PART % (b"model", b"openai/tts-1") + END, (400, "invalid_request")),
        # What only looks like the field.
        (FILE % (b'x"; name="model', b"tts-1") + END, (403, "model_not_allowed")),
        (
            FILE % (b"a", b"\r\n--frontierless\r\n" + (PART % (b"model", b"tts-1"))[12:]) + END,
            (403, "model_not_allowed"),
        ),
        (END + PART % (b"model", b"tts-1") + END, (403, "model_not_allowed")),
        (PART % (b"model", b"tts-1"), (403, "model_not_allowed")),
    ],
)
def test_a_form_without_an_allowed_model_is_not_sent(
    gateway: Gateway, sim: Sim, body: bytes, refused: tuple[int, str]
) -> None:
    project = gateway.installation.project("allowed", settings={"allowed_models": "tts-*"})
    assert error_of(upload(gateway, project.key, body)) == refused
    assert sim.calls() == 0


def test_a_form_without_a_model_is_told_to_put_it_first(gateway: Gateway, sim: Sim) -> None:
    project = gateway.installation.project("allowed", settings={"allowed_models": "tts-*"})
    message = upload(gateway, project.key, FILE % (b"a.wav", b"") + END).json()["error"]["message"]
    assert "'model' as its first field" in message


# --- a second model, after the beginning has gone up ------------------------------------------------------------------

FIRST = PART % (b"model", b"tts-1")
LATE = {
    "a second model": PART % (b"model", b"gpt-4o"),
    "the same model again": FIRST,
    "unquoted": b"--frontier\r\nContent-Disposition: form-data; name=model\r\n\r\ngpt-4o\r\n",
    "other letter case": b'--frontier\r\ncontent-disposition:FORM-DATA;NAME="Model"\r\n\r\ngpt-4o\r\n',
    "as an array": PART % (b"model[]", b"gpt-4o"),
    "as a file": b'--frontier\r\nContent-Disposition: form-data; name="model"; filename="a"\r\n\r\ngpt-4o\r\n',
    "name after filename": b'--frontier\r\nContent-Disposition: form-data; filename="a"; name="model"\r\n\r\nx\r\n',
    "quoted pair": PART % (b"mo\\del", b"gpt-4o"),
    "quote in a name": FILE % (b'a\\"; name=\\"model', b"gpt-4o"),
    "encoded name": b"--frontier\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\ngpt-4o\r\n",
    "two names": b'--frontier\r\nContent-Disposition: form-data; name="a"; name="model"\r\n\r\ngpt-4o\r\n',
    "two heads": b'--frontier\r\nContent-Disposition: form-data; name="a"\r\n' + (PART % (b"model", b"x"))[12:],
    "folded": b'--frontier\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\ngpt-4o\r\n',
    "line feeds": (PART % (b"model", b"gpt-4o")).replace(b"\r\n", b"\n"),
    "a line feed before": b"\n" + PART % (b"model", b"gpt-4o"),
    "carriage returns": (PART % (b"model", b"gpt-4o")).replace(b"\r\n", b"\r"),
    "blanks behind the delimiter": (PART % (b"model", b"gpt-4o")).replace(b"frontier\r", b"frontier \r"),
    "behind the end": END + PART % (b"model", b"gpt-4o"),
    "no head": b"--frontier\r\n\r\n" + PART % (b"model", b"gpt-4o"),
    "a head without end": (PART % (b"model", b"gpt-4o")).replace(b"\r\n\r\n", b"\r\n"),
    "a long head": b"--frontier\r\nX-A: " + b"a" * 9_000 + b"\r\n" + (PART % (b"model", b"gpt-4o"))[12:],
}


def allowed_project(gateway: Gateway, base_url: str) -> Project:
    project = gateway.installation.project("allowed", settings={"allowed_models": "tts-*"})
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=base_url)
    return project


@pytest.mark.parametrize("size", [0, 70_000, 300_000])
@pytest.mark.parametrize("how", LATE)
def test_a_second_model_never_reaches_the_provider(open_gateway: Gateway, how: str, size: int) -> None:
    whole: list[bytes] = []

    def take(call: Call) -> None:
        if len(call.body) == int(call.headers.get("content-length", -1)):
            whole.append(call.body)
        call.hang_up()

    with scripted_upstream(take) as upstream:
        project = allowed_project(open_gateway, upstream.base_url)
        body = FIRST + FILE % (b"a.wav", bytes(size)) + LATE[how] + END
        refusal = error_of(upload(open_gateway, project.key, body))
        assert refusal in ((400, "invalid_request"), (403, "model_not_allowed"))
    assert whole == []


@pytest.mark.parametrize("size", [0, 300_000])
def test_of_a_refused_chunked_form_the_provider_sees_no_end(open_gateway: Gateway, size: int) -> None:
    ended: list[bytes] = []

    def take(call: Call) -> None:
        ended.append(sent_to(call)[-200:])

    with scripted_upstream(take) as upstream:
        project = allowed_project(open_gateway, upstream.base_url)
        body = FIRST + FILE % (b"a.wav", bytes(size)) + LATE["a second model"] + FILE % (b"b", bytes(99)) + END
        answer = chunked(open_gateway, project.key, TRANSCRIPTIONS, body, "multipart/form-data; boundary=frontier")
        assert error_of(answer) == (400, "invalid_request")
        wait_for(lambda: len(ended) == len(upstream.calls), "the end of the provider's connection")
    assert not [seen for seen in ended if seen.endswith(b"0\r\n\r\n") or b"gpt-4o" in seen]


def sent_to(call: Call) -> bytes:
    """All that comes until the gateway ends the connection."""
    call.hang_up()
    return b"".join(iter(lambda: call.rfile.read1(65_536), b""))


def test_a_delimiter_in_pieces_is_still_one(open_gateway: Gateway) -> None:
    def take(call: Call) -> None:
        sent_to(call)

    with scripted_upstream(take) as upstream:
        project = allowed_project(open_gateway, upstream.base_url)
        start = FIRST + FILE % (b"a.wav", bytes(70_000))
        head = (
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project.key}\r\n"
            "Content-Type: multipart/form-data; boundary=frontier\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with RawConnection(open_gateway.port) as connection:
            connection.send(head.encode() + b"%x\r\n%b\r\n" % (len(start), start))
            for byte in LATE["a second model"].partition(b"gpt")[0]:
                connection.send(b"1\r\n%c\r\n" % byte)
            assert error_of(connection.response(b"POST")) == (400, "invalid_request")


def test_fields_of_every_usual_form_pass(open_gateway: Gateway) -> None:
    fields = (
        FIRST
        + PART % (b"timestamp_granularities[]", b"word")
        + PART % (b"timestamp_granularities[]", b"segment")
        + PART % (b"prompt", b'name="model" --front model=gpt-4o')
        + b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a b.wav"; '
        + b"filename*=UTF-8''a%20b.wav\r\nContent-Type: audio/wav\r\n\r\n"
        + bytes(range(256)) * 400
        + b"\r\n"
        + PART % (b"model_version", b"2")
        + END
    )
    with scripted_upstream(lambda call: call.reply(200, hashlib.sha256(call.body).hexdigest().encode())) as upstream:
        project = allowed_project(open_gateway, upstream.base_url)
        answer = upload(open_gateway, project.key, fields)
    assert (answer.status, answer.body.decode()) == (200, hashlib.sha256(fields).hexdigest())


@pytest.mark.parametrize(
    ("content_type", "coding"),
    [
        ("multipart/form-data; boundary=frontier; boundary=other", None),
        ("multipart/form-data; boundary=other; boundary=frontier", None),
        ("multipart/form-data; boundary*=utf-8''other; boundary=frontier", None),
        ("multipart/form-data; boundary=frontier", "gzip"),
    ],
)
def test_a_form_that_is_another_to_another_reader_is_refused(
    gateway: Gateway, sim: Sim, content_type: str, coding: str | None
) -> None:
    project = gateway.installation.project("allowed", settings={"allowed_models": "tts-*"})
    body = b"\r\n" + FIRST + END
    lines = content_type if coding is None else f"{content_type}\r\nContent-Encoding: {coding}"
    # Readable both ways: gzip keeps what cannot be made smaller as it is.
    data = body if coding is None else gzip.compress(body, 0)
    assert error_of(upload(gateway, project.key, data, lines)) == (403, "model_not_allowed")
    assert sim.calls() == 0
