"""Reads what a language's tables hold: phrases, units, numbers, small words."""

from typing import Any, Final

from watchllm.cache.semantic.marks import COPULA, DO, THERE

_SIGNS: Final[dict[str, tuple[float, str]]] = {
    "$": (1.0, "usd"),
    "€": (1.0, "eur"),
    "£": (1.0, "gbp"),
    "¥": (1.0, "jpy"),
    "%": (1.0, "percent"),
}
"""Units that every language writes alike."""
_MARKING: Final = {
    "there": THERE,
    "do": DO,
    "does": DO,
    "did": DO,
    **dict.fromkeys(("is", "are", "am", "was", "were"), COPULA),
}
Phrases = dict[str, dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]]]
"""Phrases by their first and their second word ("" = there is none), the longest first, with what they become."""


def near(
    phrases: Phrases, polite: frozenset[str], contractions: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The words of phrases, and these with a letter missing, so that misspelt ones are found by a letter left out."""
    spoken = {
        word for seconds in phrases.values() for group in seconds.values() for phrase, _ in group for word in phrase
    }
    words = {word for word in spoken if word.isalpha()} | polite
    found: dict[str, tuple[str, ...]] = {}
    for word in sorted(words - contractions.keys()):
        if len(word) > 2:
            for form in (word, *shortened(word)):
                found[form] = (*found.get(form, ()), word)
    return found


def small_words(tables: dict[str, Any]) -> frozenset[str]:
    """The words that a language's sentences are held together by."""
    lists = ("empty", "negation", "question", "pronoun", "preposition", "modal", "conjunction", "quantifier")
    return frozenset(word for name in lists for word in tables.get(name, "").split())


def shortened(word: str) -> list[str]:
    """The word with each of its letters left out."""
    return [word[:at] + word[at + 1 :] for at in range(len(word))]


def requests(tables: dict[str, Any]) -> list[tuple[str, str]]:
    """ "Could you explain" is "explain"; "could you drown" is another question than "will you drown"."""
    openers, verbs = split(tables.get("request_openers", "")), tables.get("request_verbs", "").split()
    return [(f"{opener} {verb}", verb) for opener in openers for verb in verbs]


def phrases(table: dict[str, str], requests: list[tuple[str, str]]) -> Phrases:
    """Phrases, from what they become, and requests, from what they are."""
    listed = [(phrase, becomes) for becomes, lines in table.items() for phrase in split(lines)]
    found: Phrases = {}
    for phrase, becomes in (*listed, *requests):
        words = tuple(phrase.split())
        second = words[1] if len(words) > 1 else ""
        found.setdefault(words[0], {}).setdefault(second, []).append((words, tuple(becomes.split())))
    for seconds in found.values():
        for phrases in seconds.values():
            phrases.sort(key=lambda item: -len(item[0]))
    return found


def units(text: str) -> dict[str, tuple[float, str]]:
    """The factor and the dimension of each unit, with those that every language writes alike."""
    found = dict(_SIGNS)
    for unit in split(text):
        *names, factor, dimension = unit.split()
        for name in names:
            found[name] = found[f"{name}s"] = (float(factor), dimension)
    return found


def pairs(text: str) -> dict[str, float]:
    """Words and the numbers that they stand for."""
    return {name: float(value) for name, value in (pair.split() for pair in split(text))}


def split(text: str) -> list[str]:
    """The parts of a table between bars."""
    return [part for part in (" ".join(part.split()) for part in text.split("|")) if part]


def marking(indefinite: str, definite: str) -> dict[str, int]:
    """Of each article its number, and what else `marks` tells."""
    found = {
        word: number for number, words in enumerate(split(f"{indefinite}|{definite}"), 1) for word in words.split()
    }
    return found | _MARKING if found else found
