"""What of a prompt must be the same to the letter, though its words be the same: told before these are compared."""

import re
from hashlib import blake2b
from typing import Final

import msgspec

from watchllm.cache.semantic.casing import case
from watchllm.cache.semantic.characters import hidden, smuggles
from watchllm.cache.semantic.layout import laid_out
from watchllm.cache.semantic.lexicon import Lexicon
from watchllm.cache.semantic.notation import notation
from watchllm.cache.semantic.text import Text
from watchllm.cache.semantic.unusual import unusual


class Literal(msgspec.Struct, frozen=True, array_like=True):
    """Digests (empty = there is nothing), and letters and short words whose case is meaning where a prompt has case."""

    hidden: bytes = b""
    layout: bytes = b""
    notation: bytes = b""
    case: bytes = b""
    loose_case: tuple[str, ...] = ()
    smuggles: bool = False
    """Whether there are characters in it that no text needs and that are never shown."""


_SHORT: Final = 4
"""Blank-separated words of a prompt that is looked at, whatever they are."""
_NONE: Final = ("",)
_USUAL: Final = {"en": ("", "i")}
"""What may be odd of a line of sentences and is still no symbol: quick typists write "i"."""
_INSIDE: Final = re.compile(r"[?!](?!\Z| [A-Z])")
"""A mark inside of a sentence."""

NOTHING: Final = Literal()


def literal(prompt: str, text: Text, known: Lexicon) -> Literal:
    """Compute it of a prompt and its `Text`; `known` is its language's."""
    seen = unusual(text)
    odd = seen.odd not in _USUAL.get(known.language, _NONE)
    if not (odd or seen.exact) and len(seen.chunks) > _SHORT and _is_plain(prompt):
        return NOTHING
    written = case(seen, known)
    found = Literal(
        _digest(hidden(prompt)),
        _digest(laid_out(prompt, seen.words)),
        _digest(notation(seen, french=text.language == "fr")),
        _digest(written.strict),
        written.loose,
        smuggles(prompt),
    )
    return NOTHING if found == NOTHING else found


def _is_plain(prompt: str) -> bool:
    """Whether it is a line of nothing but sentences; most prompts are."""
    if not prompt.isascii() or not prompt.isprintable() or "  " in prompt:
        return False
    return not ("?" in prompt[:-1] or "!" in prompt[:-1]) or _INSIDE.search(prompt) is None


def contradiction(a: Literal, b: Literal) -> str | None:
    """The name of what differs whatever the words say: what is hidden, and what both have in their own way."""
    if a.hidden != b.hidden or a.smuggles or b.smuggles:
        return "invisible"
    if a.notation and b.notation and a.notation != b.notation:
        return "notation"
    if a.layout and b.layout and a.layout != b.layout:
        return "layout"
    if (a.case and b.case and a.case != b.case) or _differ(a.loose_case, b.loose_case):
        return "case"
    return None


def difference(a: Literal, b: Literal) -> str | None:
    """The name of anything that differs between prompts whose words are the same; None = nothing does."""
    if a.notation != b.notation:
        return "notation"
    if a.layout != b.layout:
        return "layout"
    return "case" if a.case != b.case else None


def _digest(found: tuple[str, ...]) -> bytes:
    if not found:
        return b""
    return blake2b("\0".join(found).encode(errors="surrogatepass"), digest_size=12).digest()


def _differ(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether what both have is written differently."""
    one, other = _spellings(left), _spellings(right)
    return any(one[word] != other[word] for word in one.keys() & other.keys())


def _spellings(words: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        found.setdefault(word.casefold(), []).append(word)
    return found
