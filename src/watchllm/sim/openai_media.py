"""`/models`, audio, images and files as OpenAI answers them; files are the simulator's one stateful resource."""

import base64
import hashlib
import struct
import zlib
from typing import Any

import msgspec

from watchllm.sim.openai_validation import require
from watchllm.sim.reply import Answer, Refused, Reply, Request, Upload

MODELS = (
    "echo", "gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "o4-mini", "gpt-3.5-turbo-instruct",
    "text-embedding-3-small", "text-embedding-3-large", "omni-moderation-latest", "whisper-1", "tts-1", "gpt-image-1",
)  # fmt: skip
_MODELS_CREATED = 1_700_000_000
_SPEECH_TYPES = {
    "mp3": b"audio/mpeg", "opus": b"audio/opus", "aac": b"audio/aac", "flac": b"audio/flac", "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}  # fmt: skip
_SPEECH_BYTES = 16_384
_MAX_IMAGES = 10
_MAX_FILES = 100
_MAX_FILE_BYTES = 64 * 1024 * 1024
_encode = msgspec.json.encode


def list_models(_request: Request) -> Answer:
    """The models worth naming; any other name is accepted too."""
    return Reply(_encode({"object": "list", "data": [_model(name) for name in MODELS]}))


def one_model(request: Request) -> Answer:
    return Reply(_encode(_model(request.tail)))


def transcription(request: Request) -> Answer:
    """A text that names the upload's size and checksum, so that a test sees that every byte arrived. Raises Refused."""
    require(request.fields, "model")
    upload = _file_of(request)
    checksum = hashlib.sha256(upload.data).hexdigest()
    text = f"Transcript of {upload.filename}: {len(upload.data)} bytes, sha256 {checksum}."
    kind = request.fields.get("response_format") or "json"
    if kind == "text":
        return Reply(text.encode() + b"\n", content_type=b"text/plain; charset=utf-8")
    body: dict[str, Any] = {"text": text}
    if kind == "verbose_json":
        body |= {"task": "transcribe", "language": "english", "duration": 1.0, "segments": []}
    elif kind == "json":
        body["usage"] = {"type": "duration", "seconds": 1}
    else:
        raise Refused(f"Invalid value: '{kind}'.", param="response_format", code="invalid_value")
    return Reply(_encode(body))


def speech(request: Request) -> Answer:
    """Bytes that no text decoder accepts, the same for the same input. Raises Refused."""
    for name in ("model", "input", "voice"):
        require(request.fields, name)
    kind = request.fields.get("response_format") or "mp3"
    if kind not in _SPEECH_TYPES:
        raise Refused(f"Invalid value: '{kind}'.", param="response_format", code="invalid_value")
    noise = hashlib.shake_128(_encode(request.fields)).digest(_SPEECH_BYTES)
    return Reply(b"\xff\xf3\xe4\xc4" + noise, content_type=_SPEECH_TYPES[kind])


def image(request: Request) -> Answer:
    """One-pixel PNG images whose colour comes from the prompt. Raises Refused."""
    fields = request.fields
    require(fields, "prompt")
    count = fields.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= _MAX_IMAGES:
        raise Refused(f"Invalid value for 'n': expected 1 to {_MAX_IMAGES}.", param="n", code="invalid_value")
    data = []
    for index in range(count):
        colour = hashlib.sha256(f"{index} {fields['prompt']}".encode()).digest()[:3]
        if fields.get("response_format") == "url":
            data.append({"url": f"https://images.example.com/{colour.hex()}.png"})
        else:
            data.append({"b64_json": base64.b64encode(_png(colour)).decode()})
    usage = {"input_tokens": 8, "output_tokens": 256 * count, "total_tokens": 8 + 256 * count}
    return Reply(_encode({"created": request.created, "data": data, "usage": usage}))


class Files:
    """The uploaded files, bounded in number and bytes; the oldest go first."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}

    def clear(self) -> None:
        self._files.clear()

    def upload(self, request: Request) -> Answer:
        """Raises Refused."""
        require(request.fields, "purpose")
        upload = _file_of(request)
        described = {
            "id": f"file-{request.run}{request.number:08d}",
            "object": "file",
            "bytes": len(upload.data),
            "created_at": request.created,
            "filename": upload.filename,
            "purpose": request.fields["purpose"],
            "status": "processed",
        }
        self._files[described["id"]] = (described, upload.data)
        while len(self._files) > _MAX_FILES or sum(len(data) for _, data in self._files.values()) > _MAX_FILE_BYTES:
            del self._files[next(iter(self._files))]
        return Reply(_encode(described))

    def list(self, _request: Request) -> Answer:
        described = [file for file, _ in reversed(self._files.values())]
        return Reply(_encode({"object": "list", "data": described, "has_more": False}))

    def get(self, request: Request) -> Answer:
        """The file's description, or its content below `…/content`. Raises Refused."""
        file_id, _, part = request.tail.partition("/")
        described, data = self._find(file_id)
        if not part:
            return Reply(_encode(described))
        if part != "content":
            raise Refused(f"Invalid URL (GET /v1/files/{request.tail})", status=404)
        return Reply(data, content_type=b"application/octet-stream")

    def delete(self, request: Request) -> Answer:
        """Raises Refused."""
        self._find(request.tail)
        del self._files[request.tail]
        return Reply(_encode({"id": request.tail, "object": "file", "deleted": True}))

    def _find(self, file_id: str) -> tuple[dict[str, Any], bytes]:
        if file_id not in self._files:
            raise Refused(f"No such File object: {file_id}", status=404, param="id")
        return self._files[file_id]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _MODELS_CREATED, "owned_by": "sim"}


def _file_of(request: Request) -> Upload:
    for upload in request.files:
        if upload.field == "file":
            return upload
    raise Refused("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")


def _png(colour: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\x00" + colour)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
