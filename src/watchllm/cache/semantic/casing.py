"""Letter case, where it is meaning: units (mW, MW), symbols (n, N), code without a fence, strings that are worked on.

Elsewhere it says nothing: quick typists write without capitals, others with nothing else.
"""

import re
from typing import Final, NamedTuple

from watchllm.cache.semantic.lexicon import MODIFIER, NAME, TIME, WORD, Lexicon
from watchllm.cache.semantic.unusual import Unusual
from watchllm.cache.semantic.vocabulary import vocabulary

_UNIT: Final = re.compile(
    r"(?<![\w.,])(\d[\d.,]{0,20})(\s?)([mpyz]?(?:wh?|v|ah?|m|g|hz|pa|j|n|s|f|h|t|ω|ev|sv|gy|bq|l|k)|k|b)(?![\w'])",
    re.IGNORECASE,
)
_UNIT_ALONE: Final = re.compile(r"\b(?:[mM](?:[WVΩJ]|Hz|Pa|Wh|eV|Sv|Gy|Ah?))\b")
_ONE_WAY: Final = {
    **dict.fromkeys(("mhz", "MHZ", "Mhz"), "MHz"),
    **dict.fromkeys(("mpa", "MPA", "Mpa"), "MPa"),
    **dict.fromkeys(("mev", "MEV", "Mev"), "MeV"),
    **dict.fromkeys(("ML", "mL", "Ml"), "ml"),
    **dict.fromkeys(("hz", "HZ", "Hz"), "Hz"),
    **dict.fromkeys(("pa", "Pa", "PA"), "Pa"),
    **dict.fromkeys(("ev", "EV", "eV", "Ev"), "eV"),
    **dict.fromkeys(("ah", "AH", "Ah"), "Ah"),
    **dict.fromkeys(("wh", "WH", "Wh"), "Wh"),
    **dict.fromkeys(("sv", "SV", "Sv"), "Sv"),
    "MG": "mg", "MM": "mm", "MS": "ms", "ma": "mA", "mv": "mV", "mah": "mAh", "MAH": "mAh",
    "PM": "pm", "PS": "ps",
}  # fmt: skip
"""What is written against the rules of units can be meant in one way only."""
_USUAL: Final = frozenset(
    (
        *("mg", "mm", "ms", "ml", "mA", "mV", "mAh", "mSv", "mGy", "mF", "mH", "mT", "ps", "pm", "pg", "pF", "pA"),
        *("MW", "MHz", "MPa", "MeV", "MJ", "MΩ", "MN", "MWh", "Hz", "Pa", "eV", "Ah", "Wh", "Sv", "Gy", "Bq"),
    )
)
"""What is usually meant, which may be written as another amount, too: only what is told from it by a letter is kept."""
_AMPERES: Final = re.compile(r"\bmA\b")
_HOURS: Final = frozenset(str(hour) for hour in range(1, 13))
_ONE_LETTER_FREE: Final = frozenset("wvajlf")
_SYMBOL: Final = re.compile(r"(?<![\w'’.&/+\-])[^\W\d_](?![\w'’&/+#]|\.\w)")
_ELEMENT: Final = re.compile(r"(?<=\S\s)\b[A-Z][A-Za-z]\b(?!')")
_CAPITAL_PAIR: Final = re.compile(r"\b[A-Z][A-Za-z]\b")
_WITH_DIGIT: Final = re.compile(r"\b[^\W\d_]\w{0,40}\d\w{0,40}")
_CAPITALS: Final = re.compile(r"(?<!\A)\b(?:[A-Z]{2,4}|[a-z]{2,4})\b")
_MAY_BE_CODE: Final = re.compile(r"[\\_=$/]|::|->|\w\(")
_CODE: Final = re.compile(r"[\\_=]|\$[^\W\d]|\$\{|::|->|\w\(|/.*/|\A[(.~]{0,3}/")
_ASSIGNED: Final = re.compile(r"(?<!\S)\S{1,80}\s+[=!<>]?=\s+\S{1,80}")
_DIGIT: Final = re.compile(r"\d")
_IN_CODE: Final = re.compile(r"[(\[={<>+]\s*\x00|\x00\d+\s+(?:[)\]=<>+]|\.\w)")
_STRING: Final = re.compile(r"\S+")
_SMALL: Final = {"en": frozenset("ai"), "de": frozenset[str]()}
"""Words of one letter, where not those of all languages may be meant."""
_ARTICLES: Final = frozenset(("a", "an", "ein", "eine", "einen", "un", "una", "une"))
_SENTENCE: Final = (".", "!", "?", ":", "\n")
_ENDS: Final = (".", "!", "?")
_EDGES: Final = ".,;:!?…()¿¡\"'"
_SAID: Final = (WORD, NAME, MODIFIER, TIME)
_SHORT: Final = 4
_FEWEST: Final = 3
"""Words of a prompt whose letter case says whether its writer cares."""


class Case(NamedTuple):
    """`strict` must be the same; `loose` (what, as written) only where both prompts have capitals as sentences have."""

    strict: tuple[str, ...]
    loose: tuple[str, ...]


def case(seen: Unusual, known: Lexicon) -> Case:
    """What of a prompt's letter case is meaning."""
    text, exact, words = seen.text, seen.exact, seen.words
    strict: list[str] = []
    loose: list[str] = []
    about_strings = not vocabulary().strings.isdisjoint(words)
    if exact and len({content.casefold() for content in exact}) < len(set(exact)):
        strict.extend(exact)  # In the order of the text: is "A" < "a"?
    elif exact and (about_strings or _IN_CODE.search(text) or not vocabulary().equality.isdisjoint(words)):
        strict.extend(sorted(exact))
    has_digit = _DIGIT.search(seen.odd) is not None
    if has_digit:
        _units(text, strict, loose)
    if _UNIT_ALONE.search(seen.odd) is not None:
        strict.extend(unit for unit in _UNIT_ALONE.findall(text) if unit not in _USUAL and unit != "MA")
    if _MAY_BE_CODE.search(seen.odd) is not None:
        strict.extend(_code(text))
    symbols = _symbols(text, known.language) if 1 in map(len, words) else ()
    strict.extend(letter for letter in symbols if about_strings or not letter.isascii())
    # Whoever asks about strings writes them as they are.
    if len(seen.chunks) >= _FEWEST and (text.isupper() or (text.islower() and not about_strings)):
        return Case(tuple(strict), ())
    if about_strings:
        loose.extend(_strings(text, known))
    else:
        loose.extend(symbols)
        loose.extend(_AMPERES.findall(text) if "mA" in seen.odd else ())
        if _CAPITAL_PAIR.search(seen.odd) is not None:
            loose.extend(_ELEMENT.findall(text))
        if has_digit and not vocabulary().secrets.isdisjoint(words):
            loose.extend(_WITH_DIGIT.findall(text))
    if len(seen.chunks) <= _SHORT:
        loose.extend(found for found in _CAPITALS.findall(text) if _is_word(found.lower(), known))
    return Case(tuple(strict), tuple(loose))


def _is_word(word: str, known: Lexicon) -> bool:
    found = known.word(word)
    return word in known.known and found.kind in _SAID and bool(found.key)


def _code(text: str) -> list[str]:
    """What looks like code, if letter case is in it."""
    found = [chunk for chunk in text.split() if _CODE.search(chunk) is not None]
    if "=" in text:
        found.extend(_ASSIGNED.findall(text))
    return [code for chunk in found if (code := chunk.strip(_EDGES)) != code.lower()]


def _units(text: str, strict: list[str], loose: list[str]) -> None:
    """Units behind numbers: all of them where one is not what is usual, of one letter where sentences have capitals."""
    found: list[str] = []
    unusual = False
    for number, blank, unit in _UNIT.findall(text):
        unit = _ONE_WAY.get(unit, unit)
        if unit == "pm" and number in _HOURS:
            continue
        if len(unit) > 1 or (unit == "M" and blank and not text.isupper()):
            found.append(f"{number} {unit}")
            unusual = unusual or unit not in _USUAL
        elif unit.lower() not in _ONE_LETTER_FREE and (blank or unit not in "kK"):
            loose.append(f"{number} {unit}")
    strict.extend(found if unusual else ())


def _symbols(text: str, language: str) -> list[str]:
    """Letters that stand alone and are no words."""
    small = _SMALL.get(language, vocabulary().small)
    found: list[str] = []
    for match in _SYMBOL.finditer(text):
        letter = match[0]
        if letter.lower() == letter.upper() or letter == "I":
            continue
        if letter.lower() in small:
            before, after = text[: match.start()].rstrip(), text[match.end() :].lstrip()
            is_first = not before or before.endswith(_SENTENCE)
            if (
                after
                and (after[0].isalnum() or after[0] in "\"'\x00(")
                and (letter.islower() or is_first or text.isupper())
            ):
                continue
            if letter == "i":
                continue
        found.append(letter)
    return found


def _strings(text: str, known: Lexicon) -> list[str]:
    """The words of a text about strings as they are written, without those that start sentences or are about it."""
    about = vocabulary().strings
    found: list[str] = []
    first, before = True, ""
    for match in _STRING.finditer(text):
        chunk = match[0]
        word = chunk.strip(_EDGES)
        small = word.lower()
        if (
            word
            and not first
            and small != "i"
            and before not in _ARTICLES  # A URL is no string.
            and small not in known.technology
            and about.isdisjoint((small, *small.split("-")))
        ):
            found.append(word)
        first, before = chunk.endswith(_ENDS), small
    return found
