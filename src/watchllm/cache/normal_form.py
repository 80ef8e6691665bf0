"""Unicode normalisation whose time is bounded by the text's length.

Combining marks are sorted by insertion, so that 64 Ki of them behind one letter take seconds on the event loop, and a
megabyte minutes. No writing stacks more than a few: Unicode's own "stream-safe" format (UAX #15, section 13) has 30.
"""

import re
import unicodedata
from typing import Final, Literal

MOST_MARKS: Final = 30
"""Combining marks in a row of a text that is normalised."""
# All of them are neither letters nor white space; emoji are, too, and stand in rows.
_ROW: Final = re.compile(rf"[^\w\s\x00-\x7f\U0001f000-\U0001faff]{{{MOST_MARKS + 1},}}")

_TWO_MARKS: Final = frozenset("\u0f73\u0f75\u0f81")
"""Written as one, of class 0, and taken apart."""


def normalized(form: Literal["NFC", "NFKC"], text: str) -> str | None:
    """The text in a normal form; None where it has more combining marks in a row than are put in order."""
    if form == "NFKC":
        # The only two letters that are marks in this form.
        text = text.replace("\uff9e", "\u3099").replace("\uff9f", "\u309a")
    if any(sum(map(_is_mark, row[0])) > MOST_MARKS for row in _ROW.finditer(text)):
        return None
    return unicodedata.normalize(form, text)


def _is_mark(char: str) -> bool:
    return unicodedata.combining(char) != 0 or char in _TWO_MARKS
