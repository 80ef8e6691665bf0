"""Numbers, amounts with units, dates and times of day, each brought to one spelling: 2 km is 2000 m, 6 pm is 18:00."""

import re
from typing import Final

from watchllm.cache.semantic.lexicon import Lexicon

_NUMBER: Final = re.compile(
    r"([-+]?)([$€£¥]?)(\d[\d.,'_]*|\.\d+)([^\W\d_]+(?:/[^\W\d_]+)?|%|°[a-z]?|[€£¥])?", re.IGNORECASE
)
_ISO: Final = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(am|pm|h)?", re.IGNORECASE)
_VERSION: Final = re.compile(r"v(\d+(?:\.\d+)*)", re.IGNORECASE)
_NUMERIC_DATE: Final = re.compile(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4})")
VERSION_WORDS: Final = ("version", "ver")
_MONEY: Final = frozenset(
    (
        "vat",
        "tax",
        "taxes",
        "price",
        "cost",
        "costs",
        "pay",
        "paid",
        "rent",
        "salary",
        "fee",
        "fees",
        "loan",
        "tip",
        "budget",
        "worth",
        "spend",
        "invest",
        "save",
        "savings",
        "buy",
        "bill",
        "wage",
        "euros",
        "dollars",
        "pence",
        "mortgage",
        "debt",
        "cheaper",
    )
)
"""Among these a pound is money."""
_FRACTION: Final = re.compile(r"(\d{1,4})/(\d{1,4})")
_ORDINAL: Final = ("st", "nd", "rd", "th")
_HALF_DAY: Final = ("am", "pm", "a.m", "p.m")
_DIGITS: Final = 12


def starts(word: str, lexicon: Lexicon) -> bool:
    """Whether a number may start with this lower-case word."""
    first = word[0]
    return (
        first.isdigit()
        or word in lexicon.numbers
        or word in lexicon.months
        or word in lexicon.ordinals
        or word in VERSION_WORDS
        or (first in "$€£¥+-.v" and word[-1].isalnum() and any(char.isdigit() for char in word[:3]))
    )


def quantity(words: list[str], at: int, lexicon: Lexicon) -> tuple[str, int] | None:
    """The quantity that starts at `words[at]` (lower case): its one spelling and how many words it takes."""
    word = words[at]
    if word in VERSION_WORDS:
        match = _VERSION.fullmatch(f"v{words[at + 1]}") if at + 1 < len(words) else None
        return None if match is None else (f"#{match[1]}", 2)
    found = _date(words, at, lexicon)
    if found is not None:
        return found
    if (match := _CLOCK.fullmatch(word)) is not None:
        suffix, taken = match[3] or "", 1
        if not suffix and at + 1 < len(words) and words[at + 1] in _HALF_DAY:
            suffix, taken = words[at + 1], 2
        return _clock(int(match[1]), int(match[2]), suffix), taken
    if (match := _VERSION.fullmatch(word)) is not None:
        return f"#{match[1]}", 1
    if (match := _FRACTION.fullmatch(word)) is not None and int(match[2]):
        return _counted(int(match[1]) / int(match[2]), words, at + 1, lexicon)
    if word in lexicon.ordinals:
        return f"#{lexicon.ordinals[word]:.15g}th", 1
    if word in lexicon.numbers:
        return _spelled(words, at, lexicon)
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    return _written(words, at, lexicon, match)


def _counted(value: float, words: list[str], at: int, lexicon: Lexicon) -> tuple[str, int]:
    """A fraction, with the unit behind it."""
    unit = words[at] if at < len(words) else ""
    if unit not in lexicon.units:
        return f"#{value:.12g}", 1
    factor, dimension = lexicon.units[unit]
    return f"#{value * factor:.12g} {dimension}", 2


def _written(words: list[str], at: int, lexicon: Lexicon, match: re.Match[str]) -> tuple[str, int] | None:
    """A number in digits, with its currency before it or its unit behind it, joined or apart."""
    sign, currency, digits, suffix = match[1], match[2], match[3], (match[4] or "").lower()
    if len(digits) > _DIGITS or (digits[0] == "0" and digits.isdecimal() and len(digits) > 1):
        return None  # An identifier: a float would not tell it from others, nor 007 from 7.
    value = _value(digits, lexicon.language)
    if value is None:
        return None
    taken = 1
    following = words[at + 1] if at + 1 < len(words) else ""
    if suffix in _ORDINAL:
        return f"#{value:.15g}th", taken
    if suffix in _HALF_DAY or (not suffix and following in _HALF_DAY):
        return _clock(int(value), 0, suffix or following), 1 if suffix else 2
    if suffix and suffix not in lexicon.units and suffix not in lexicon.scales:
        return None
    scaled = suffix in lexicon.scales and not (suffix in lexicon.units and not currency)
    if suffix and scaled:
        value *= lexicon.scales[suffix]
        suffix = ""
    elif not suffix and following in lexicon.scales:
        value, taken = value * lexicon.scales[following], 2
        following = words[at + taken] if at + taken < len(words) else ""
    if sign == "-":
        value = -value
    unit = currency or suffix
    if not unit and following in lexicon.units and not (following == "m" and taken == 2):
        unit, taken = following, taken + 1
    if not unit:
        # A number without a unit may be a version, where 3.10 is not 3.1.
        return (f"#{sign.strip('+')}{digits}" if digits.endswith("0") and "." in digits else f"#{value:.15g}"), taken
    degree = words[at + taken] if at + taken < len(words) else ""
    if lexicon.units[unit][1] == "degree" and degree in lexicon.units:
        unit, taken = degree, taken + 1
    factor, dimension = lexicon.units[unit]
    if unit in ("pound", "pounds") and not _MONEY.isdisjoint(words):
        factor, dimension = 1.0, "gbp"
    return f"#{value * factor:.12g} {dimension}", taken


def _spelled(words: list[str], at: int, lexicon: Lexicon) -> tuple[str, int]:
    """A number in words: twenty-one, two hundred, three million."""
    value, taken = lexicon.numbers[words[at]], 1
    if (
        value == 0.5
        and words[at + 1 : at + 2] in (["a"], ["an"])
        and words[at + 2 : at + 3]
        and words[at + 2] in lexicon.units
    ):
        taken = 2
    while at + taken < len(words):
        following = words[at + taken]
        if value >= 20 and value % 10 == 0 and 0 < lexicon.ordinals.get(following, 0) < 10:
            return f"#{value + lexicon.ordinals[following]:.15g}th", taken + 1
        if value >= 20 and value % 10 == 0 and 0 < lexicon.numbers.get(following, 0) < 10:
            value += lexicon.numbers[following]
        elif following in lexicon.scales and len(following) > 1:
            value *= lexicon.scales[following]
        elif following in lexicon.units and len(following) > 2:
            factor, dimension = lexicon.units[following]
            return f"#{value * factor:.12g} {dimension}", taken + 1
        else:
            break
        taken += 1
    return f"#{value:.15g}", taken


def _date(words: list[str], at: int, lexicon: Lexicon) -> tuple[str, int] | None:
    """2024-05-01, 1 May 2024, May 1st, 2024: day and month in either order, a year if there is one."""
    word = words[at]
    if (match := _ISO.fullmatch(word)) is not None:
        return f"#{int(match[1])}-{int(match[2])}-{int(match[3])} date", 1
    if (match := _NUMERIC_DATE.fullmatch(word)) is not None:
        return _numeric_date(int(match[1]), int(match[3]), int(match[4]), match[2])
    taken, day, month = 0, 0, 0
    for _ in range(2):
        if at + taken < len(words) and taken and words[at + taken] == "of":
            taken += 1
        candidate = words[at + taken] if at + taken < len(words) else ""
        if not month and candidate in lexicon.months:
            month = lexicon.months[candidate]
        elif not day:
            day = _day(candidate, lexicon)
            if not day:
                return None
        else:
            return None
        taken += 1
    year = ""
    skip = 1 if at + taken < len(words) and words[at + taken] == "," else 0
    candidate = words[at + taken + skip] if at + taken + skip < len(words) else ""
    if len(candidate) == 4 and candidate.isdecimal():
        year, taken = f"{int(candidate)}-", taken + skip + 1
    return f"#{year}{month}-{day} date", taken


def _numeric_date(first: int, second: int, year: int, mark: str) -> tuple[str, int] | None:
    """12/31/2024, 31/12/2024, 31.12.2024; where either might be the month, nobody knows which is."""
    day, month = (first, second) if mark == "." or first > 12 else (second, first)
    is_clear = mark == "." or first > 12 or second > 12
    return (f"#{year}-{month}-{day} date", 1) if is_clear and 0 < month <= 12 and 0 < day <= 31 else None


def _day(word: str, lexicon: Lexicon) -> int:
    digits = word[:-2] if word.endswith(_ORDINAL) else word
    if digits.isascii() and digits.isdecimal() and len(digits) <= 2 and 0 < int(digits) <= 31:
        return int(digits)
    return int(lexicon.ordinals.get(word, 0))


def _clock(hour: int, minute: int, suffix: str) -> str:
    if suffix.startswith("p") and hour < 12:
        hour += 12
    elif suffix.startswith("a") and hour == 12:
        hour = 0
    return f"#{hour}:{minute:02d} clock"


def _value(digits: str, language: str) -> float | None:
    """The number that was written, with the language's marks for thousands and decimals."""
    digits = digits.replace("'", "").replace("_", "")
    if language in ("de", "es", "fr") and "," in digits:
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits):
        digits = digits.replace(",", "")
    try:
        return float(digits) if digits.isascii() else None
    except ValueError:
        return None
