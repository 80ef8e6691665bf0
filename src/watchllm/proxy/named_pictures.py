"""Whether a request may give images, or servers of tools, by URL, told from its bytes."""

import re

# A part of a message that may be given by URL, in any dialect; an escape could hide one.
_PARTS = re.compile(rb'"(?:[a-z]+_)?(?:image|file|video|audio|source|document|url)(?:_[a-z]+)?"|\\u00')
# What leads somewhere, to the strict and to the lenient, and however the slashes are written.
_LEADS = re.compile(rb"//|\\/|:/|:\\|\\u00|(?i:https?:)")


def may_name_pictures(body: bytes) -> bool:
    """Whether a request has to be looked at: most are not."""
    return _LEADS.search(body) is not None and _PARTS.search(body) is not None
