"""Whether a request may give images by URL, told from its bytes."""

import re

# A part of a message that may be given by URL, in any dialect; an escape could hide one.
_PARTS = re.compile(rb'"(?:[a-z]+_)?(?:image|file|video|audio|source|document|url)(?:_[a-z]+)?"|\\u00')


def may_name_pictures(body: bytes) -> bool:
    """Whether a request has to be looked at: most are not."""
    return b"//" in body and _PARTS.search(body) is not None
