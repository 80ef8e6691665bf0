"""The OpenAI dialects of the simulator: their paths, headers and errors."""

import msgspec

from watchllm.sim.openai_chat import chat_completion
from watchllm.sim.openai_media import Files, image, list_models, one_model, speech, transcription
from watchllm.sim.openai_texts import completion, embeddings, moderation
from watchllm.sim.reply import Dialect, Endpoint, Refused
from watchllm.sim.responses import Responses
from watchllm.sim.responses_store import StoredResponses


def openai_dialect(files: Files) -> Dialect:
    """The dialect over its one stateful resource."""
    return Dialect(
        paths={
            b"/chat/completions": {b"POST": Endpoint(chat_completion)},
            b"/completions": {b"POST": Endpoint(completion)},
            b"/embeddings": {b"POST": Endpoint(embeddings)},
            b"/moderations": {b"POST": Endpoint(moderation)},
            b"/models": {b"GET": Endpoint(list_models, body="")},
            b"/models/": {b"GET": Endpoint(one_model, body="")},
            b"/audio/transcriptions": {b"POST": Endpoint(transcription, body="form")},
            b"/audio/translations": {b"POST": Endpoint(transcription, body="form")},
            b"/audio/speech": {b"POST": Endpoint(speech)},
            b"/images/generations": {b"POST": Endpoint(image)},
            b"/files": {b"POST": Endpoint(files.upload, body="form"), b"GET": Endpoint(files.list, body="")},
            b"/files/": {b"GET": Endpoint(files.get, body=""), b"DELETE": Endpoint(files.delete, body="")},
        },
        head=head,
        error_body=error_body,
        stream_error=lambda number, _position: b"data: " + error_body(MID_STREAM, number) + b"\n\n",
        asked_for=asked_for,
        unreadable=UNREADABLE,
    )


def responses_dialect(stored: StoredResponses) -> Dialect:
    """The Responses part of the dialect over what it stored; its errors inside a stream have a form of their own."""
    responses = Responses(stored)
    return Dialect(
        paths={
            b"/responses": {b"POST": Endpoint(responses.create)},
            b"/responses/": {b"GET": Endpoint(responses.get, body=""), b"DELETE": Endpoint(responses.delete, body="")},
        },
        head=head,
        error_body=error_body,
        stream_error=_responses_stream_error,
        asked_for=asked_for,
        unreadable=UNREADABLE,
    )


def head(number: int) -> bytes:
    """The headers that an answer has beside its content: a gateway must not hand these on, so they had better be
    there."""
    return _HEAD % (number, number, number)


def _responses_stream_error(_number: int, position: int) -> bytes:
    event = {"type": "error", "code": MID_STREAM.type, "message": MID_STREAM.message, "param": None}
    return b"event: error\ndata: " + msgspec.json.encode({**event, "sequence_number": position}) + b"\n\n"


def error_body(refused: Refused, _number: int) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`"""
    return msgspec.json.encode(
        {"error": {"message": refused.message, "type": refused.type, "param": refused.param, "code": refused.code}}
    )


def asked_for(status: int, code: str) -> Refused:
    """The error that OpenAI would send with `status`; `code` replaces the usual one."""
    message, kind, usual = _ERRORS.get(status) or (_OTHER_SERVER_ERROR if status >= 500 else _OTHER_CLIENT_ERROR)
    return Refused(message, status=status, kind=kind, code=code or usual)


MID_STREAM = Refused("The server had an error while processing your request. Sorry about that!", kind="server_error")
UNREADABLE = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)
_HEAD = (
    b"x-request-id: req_sim%08d\r\n"
    b"x-sim-call: %d\r\n"
    b"openai-organization: org-simulated\r\n"
    b"openai-processing-ms: 12\r\n"
    b"openai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\n"
    b"x-ratelimit-limit-tokens: 2000000\r\n"
    b"x-ratelimit-remaining-requests: 9999\r\n"
    b"x-ratelimit-remaining-tokens: 1999975\r\n"
    b"x-ratelimit-reset-requests: 6ms\r\n"
    b"x-ratelimit-reset-tokens: 0s\r\n"
    b"strict-transport-security: max-age=31536000; includeSubDomains\r\n"
    b"cf-ray: 0000000000000000-SIM\r\n"
    b"server: sim\r\n"
    b"set-cookie: __cf_bm=sim%d; path=/; HttpOnly; Secure\r\n"
)
_ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("The simulator was asked to refuse this request.", "invalid_request_error", None),
    401: (
        "Incorrect API key provided: sk-sim*****.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    403: ("You are not allowed to use this model.", "invalid_request_error", "model_not_allowed"),
    404: ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached for requests. Please try again later.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
}
_OTHER_CLIENT_ERROR = ("The simulator was asked for this status.", "invalid_request_error", None)
_OTHER_SERVER_ERROR = ("The simulator was asked for this status.", "server_error", None)
