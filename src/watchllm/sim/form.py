"""`multipart/form-data` bodies, read whole."""

from watchllm.sim.reply import Refused, Upload

_MAX_PARTS = 1000


def parse_form(content_type: bytes, body: bytes) -> tuple[dict[str, str], list[Upload]]:
    """The text fields by name, and the files. Raises Refused."""
    parameters = _parameters(content_type.decode("latin-1"))
    boundary = parameters.get("boundary", "")
    if not content_type.lower().startswith(b"multipart/form-data") or not boundary:
        raise Refused("Expected a body of type multipart/form-data with a boundary.", status=415)
    fields: dict[str, str] = {}
    files: list[Upload] = []
    # The first delimiter has no line break before it.
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise Refused("Could not parse multipart form: it does not end with its boundary.")
    if len(parts) > _MAX_PARTS:
        raise Refused(f"Could not parse multipart form: more than {_MAX_PARTS} parts.")
    for part in parts[1:-1]:
        head, separator, data = part.partition(b"\r\n\r\n")
        if not separator:
            raise Refused("Could not parse multipart form: a part has no end of its head.")
        lines = head.decode("utf-8", "replace").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        disposition = _parameters(headers.get("content-disposition", ""))
        name = disposition.get("name", "")
        if "filename" in disposition:
            kind = headers.get("content-type", "application/octet-stream")
            files.append(Upload(name, disposition["filename"], kind, data))
        else:
            fields[name] = data.decode("utf-8", "replace")
    return fields, files


def _parameters(value: str) -> dict[str, str]:
    parameters = {}
    for part in value.split(";")[1:]:
        name, _, text = part.strip().partition("=")
        parameters[name.lower()] = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    return parameters
