"""Characters: those that nobody sees and a model reads, and those that look like others and are not."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from watchllm.cache.normal_form import normalized

_IGNORABLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Drawn as nothing, though by their category they might be printed."""
_TAG: Final = re.compile("[\U000e0000-\U000e007f]")
"""Whole instructions are written in them; no text needs them."""
_EMOJI_STYLE: Final = re.compile(
    "(?<=[\u200d\u203c-\u3299\U0001f000-\U0001faff])[\ufe0e\ufe0f](?![\ufe00-\ufe0f\U000e0100-\U000e01ef])"
)
"""One variation selector says how the sign before it is drawn; a row of them carries bytes."""
_KEYCAP: Final = re.compile("\ufe0f(?=\u20e3)")
_BLANK: Final = re.compile("[ \n\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_ENDS: Final = re.compile("\\A\ufeff|\u200b\\Z")
"""Left by editors and by copying: a byte order mark, a space of no width."""

_RAISED: Final = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ"
_LOWERED: Final = "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ"
_ON_THE_LINE: Final = str.maketrans(_RAISED + _LOWERED, "0123456789+-=()ni" * 2)
_POWER: Final = re.compile(f"[{_RAISED}]+")
_INDEX: Final = re.compile(f"(?<![A-Z)\\]{_LOWERED}])(?<![A-Z][a-z])([{_LOWERED}]+)")
_VULGAR: Final = re.compile("(\\d?)([¼-¾⅐-⅞↉])")
_KEPT: Final = ("<circle>", "<font>", "<square>", "<super>", "<sub>", "<fraction>")
"""Ways of writing a letter or digit that say more than it does; the others (wide, narrow, joined) say the same."""
_SAME_RAISED: Final = "ªº"
_RANGED: Final = re.compile("[\u2474-\u249b]")
"""Numbers in brackets and with a full stop."""
_COMPATIBLE: Final = re.compile(
    "[\0-\x7f\xa1\xab\xbf\xc0-\u0131\u0134-\u013e\u0141-\u0148\u014a-\u017e\u2010\u2012-\u2016\u2018-\u2022]*"
)
"""Nothing but letters and punctuation of European languages that are in this form, one by one."""


def hidden(text: str) -> tuple[str, ...]:
    """The stretches between blanks with a character in them that is not seen, in order."""
    is_shown = text.isprintable() or text.replace("\n", " ").replace("\t", " ").isprintable()
    if is_shown and not _IGNORABLE.search(text):
        return ()
    text = _ENDS.sub("", text.replace("\r\n", "\n"))
    if not text.isascii():
        text = _KEYCAP.sub("", _EMOJI_STYLE.sub("", text))
    return tuple(chunk.casefold() for chunk in _BLANK.split(text) if _has_hidden(chunk))


def smuggles(text: str) -> bool:
    """Whether there are tag characters: what they say is not known to whom the text is shown, ever."""
    return not text.isascii() and _TAG.search(text) is not None


def normal(text: str) -> str | None:
    """The text in Unicode's compatible form, but for what is meaning: 3² becomes 3^2 and not 32, x₂ x_2, 2½ 2 1/2.

    An index behind the letters of an element is written on the line, as it usually is: H₂O is H2O. None where more
    marks stand on one letter than are put in order.
    """
    if _COMPATIBLE.fullmatch(text) is not None:
        return text
    text = _POWER.sub(lambda match: "^" + match[0].translate(_ON_THE_LINE), text)
    text = _INDEX.sub(lambda match: "_" + match[1].translate(_ON_THE_LINE), text).translate(_ON_THE_LINE)
    text = _VULGAR.sub(_fraction, text)
    return normalized("NFC", "".join(map(_compatible, text)))


def _has_hidden(chunk: str) -> bool:
    return not chunk.isprintable() or _IGNORABLE.search(chunk) is not None


def _fraction(match: re.Match[str]) -> str:
    written = unicodedata.normalize("NFKC", match[2]).replace("\u2044", "/")
    return f"{match[1]} {written}" if match[1] else written


@lru_cache(maxsize=4_096)
def _compatible(char: str) -> str:
    if char not in _SAME_RAISED and (
        unicodedata.decomposition(char).startswith(_KEPT) or _RANGED.match(char) is not None
    ):
        return char
    return unicodedata.normalize("NFKC", char)
