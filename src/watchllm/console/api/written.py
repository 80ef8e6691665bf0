"""How a document is answered."""

from typing import Any

import msgspec
from starlette.responses import Response


def written(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """As JSON."""
    return Response(msgspec.json.encode(document), status, headers, media_type="application/json")
