"""What a request line asks for: its path and query, whether they came as a path or inside a whole URL (RFC 9112, 3.2).

A URL's authority takes the place of the Host header, and nothing here depends on either.
"""

from __future__ import annotations


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Both parts as they were sent; what is neither a path nor an http URL without a user is given back as the path."""
    path, _, query = target.partition(b"?")
    if path[:1] == b"/":
        return path, query
    scheme, mark, rest = path.partition(b"://")
    authority, slash, below = rest.partition(b"/")
    if not mark or scheme.lower() not in (b"http", b"https") or not authority or b"@" in authority:
        return path, query
    return slash + below or b"/", query
