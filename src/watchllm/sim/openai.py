"""The OpenAI dialect of the simulator: its paths and its errors."""

import msgspec

from watchllm.sim.openai_chat import chat_completion
from watchllm.sim.openai_media import Files, image, list_models, one_model, speech, transcription
from watchllm.sim.openai_texts import completion, embeddings, moderation
from watchllm.sim.reply import Dialect, Endpoint, Refused


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
        error_body=error_body,
        error_event=lambda refused: b"data: " + error_body(refused) + b"\n\n",
    )


def error_body(refused: Refused) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`"""
    return msgspec.json.encode(
        {"error": {"message": refused.message, "type": refused.type, "param": refused.param, "code": refused.code}}
    )


def asked_for(status: int, code: str) -> Refused:
    """The error that OpenAI would send with `status`; `code` replaces the usual one."""
    message, kind, usual = _ERRORS.get(status) or (_OTHER_SERVER_ERROR if status >= 500 else _OTHER_CLIENT_ERROR)
    return Refused(message, status=status, kind=kind, code=code or usual)


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
