"""Where punctuation is no punctuation: signs that are asked about, primes, brackets and minus signs in formulas, and
the raised digits and fractions of Unicode, which lose what they say when they are normalised.
"""

import re
from collections.abc import Sequence
from typing import Final

_RAISED: Final = re.compile(
    "((?<![^\\s\\d/])(?:[kcdm]?m|ft|in|yd|mi))?"
    "([\u00b2\u00b3\u00b9\u2070\u2071\u2074-\u207f]+)"
    "|(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])"
)
_AREAS: Final = frozenset(("\u00b2", "\u00b3"))
_NAMING: Final = frozenset(
    (
        *("a", "an", "the", "of", "is", "are", "do", "does", "between", "and", "or", "versus", "vs", "use", "using"),
        *("with", "operator", "operators", "symbol", "sign", "mark", "character", "called"),
        *("das", "der", "die", "von", "ist", "bedeutet", "und", "oder", "zwischen", "mit", "zeichen"),
        *("el", "la", "de", "es", "significa", "y", "o", "entre", "con", "signo", "símbolo", "operador"),
        *("le", "du", "est", "signifie", "et", "ou", "avec", "signe", "symbole", "opérateur"),
    )
)
"""Words with which no clause ends that goes on behind the mark: what stands there is what is talked about."""
_ENCLOSING: Final = frozenset("()\"'")
_BESIDE: Final = "()[]{}|.,;:?!'\""
_OPERATORS: Final = frozenset(("+", "*", "/", "=", "^", "<", ">", "×", "÷", "==", "**", "//", "%", "·", "±", "≤", "≥"))
_PRONOUN: Final = "I"
_ARTICLE: Final = "a"
_SPOKEN: Final = frozenset("no")
"""Letters with an apostrophe behind them in rock n' roll, o' clock."""
_SAID: Final = frozenset("aiu")
"""Letters that people write for words."""
PRIME: Final = "\u2032"


def spelled_out(prompt: str) -> str:
    """x² and 1½ as people type them: x^2 and 1 1/2, not x2 and 11/2. Of areas and volumes, m2 is what is typed."""
    return _RAISED.sub(_spelled, prompt)


def is_asked_about(chunk: str, before: str, after: str) -> bool:
    """Whether a chunk of nothing but punctuation is what is talked about: what does () mean, what does ?? do in C#."""
    if not after:
        return False
    if len(chunk) > 1 and not _ENCLOSING.isdisjoint(chunk):
        return True
    return before.lower() in _NAMING and not after[0].isupper()


def is_minus(before: str, after: str) -> bool:
    """Whether a line between two chunks takes one from the other."""
    return before != _PRONOUN and after != _ARTICLE and _is_operand(before) and _is_operand(after)


def is_formula(chunks: Sequence[str]) -> bool:
    """Whether operators stand among the chunks, so that brackets say what belongs together."""
    return not _OPERATORS.isdisjoint(chunks)


def primes(stripped: str, tail: str) -> int:
    """How many primes behind a number or a letter are what the tail's quotation marks are: y', 5'11"."""
    if not (stripped[-1].isdigit() or (len(stripped) == 1 and stripped.isalpha() and stripped not in _SPOKEN)):
        return 0
    marks = tail[: len(tail) - len(tail.lstrip("'\""))]
    return len(marks) + marks.count('"')


def is_factorial(stripped: str, tail: str) -> bool:
    """Whether the exclamation mark behind it is one, perhaps: 5!, n!, (n + k)!"""
    if not tail.lstrip(")").startswith("!"):
        return stripped[-1].isdigit() and "!" in tail
    return stripped[-1].isdigit() or (len(stripped) == 1 and stripped.islower() and stripped not in _SAID)


def _is_operand(chunk: str) -> bool:
    bare = chunk.strip(_BESIDE)
    return bool(bare) and (bare[0].isdigit() or (len(bare) == 1 and bare.isalpha()))


def _spelled(match: re.Match[str]) -> str:
    unit, raised = match[1] or "", match[2]
    if raised is None:
        return " "
    return match[0] if unit and raised in _AREAS else f"{unit}^{raised}"
