"""A prompt's words as they are said: in lower case, small words put right, contractions spelled out, courtesies taken
off, and phrases replaced by what they say."""

import hashlib
import re
from typing import Final, NamedTuple

from watchllm.cache.semantic import accents
from watchllm.cache.semantic.lexicon import GERUND, PLURAL, Lexicon, Said, fold
from watchllm.cache.semantic.marks import BREAK, COLON, COMMA, EXACT_MARK
from watchllm.cache.semantic.text import Text

_PUNCTUATION: Final = frozenset((BREAK, COMMA, COLON))
_PAUSES: Final = frozenset((COMMA, COLON))
_BITS: Final = re.compile(r"\d*[KMGT]b")
"""Mb is not MB: one of the few cases where letter case is meaning."""
_BYTES_A_SECOND: Final = re.compile(r"\d*[KMGT]B(?:ps|/s)")
_CONTRACTED: Final = {"'ve": "have", "'re": "are", "'ll": "will", "n't": "not"}
_HAD: Final = frozenset(("better", "already", "never", "just", "been", "always"))
"""Words before which 'd is had."""
_ITS: Final = ("its", "Its")
_LONGEST_FOLDED: Final = 64
_TITLED: Final = "\u00a0"
"""Behind a courtesy that is written as part of a name: Please Mr. Postman."""
_HOWTO: Final = "howto"
_GENERAL: Final = (_HOWTO,)
_PERSONAL: Final = frozenset(("i", "me", "my", "mine", "we", "us", "our", "your", "yourself"))
_STATES: Final = frozenset(("feel", "work", "know", "think", "look", "live", "like", "sleep", "see", "learn", "differ"))
_AIMS: Final = (
    ("must",),
    ("want", "to"),
    ("would", "like", "to"),
    ("am", "trying", "to"),
    ("wish", "to"),
    ("wanted", "to"),
)
_IT: Final = frozenset(
    (
        (),
        ("proceed",),
        *((it,) for it in ("it", "this", "that")),
        *((verb, it) for verb in ("do", "achieve", "accomplish") for it in ("it", "this", "that", "so")),
    )
)


class Spoken(NamedTuple):
    """What `features` goes on with. `words` is the caller's to change."""

    words: list[str]
    capitals: dict[str, bool]
    """The words written with a capital, and whether one stood inside a sentence."""
    spellings: dict[str, str]
    """Names of code, with the letter case that is meaning in them."""
    plain: bytes
    """A digest of the words without their apostrophes and punctuation: the same for its, it's and its'."""
    accented: tuple[str, ...]
    """Words that may be others without their accents, in order."""
    marked: tuple[str, ...]
    """All words with accents."""


def speak(text: Text, known: Lexicon) -> Spoken:
    """The words of a text in its language."""
    lower: list[str] = []
    capitals: dict[str, bool] = {}
    spellings: dict[str, str] = {}
    plain: list[str] = []
    accented: list[str] = []
    marked: list[str] = []
    first, inside_clause = True, False
    courteous = known.courtesy.words_of_title
    remembered, polite, kept_after, simple = known.said_words, known.polite, known.kept_after, known.simple_words
    for at, word in enumerate(text.words):
        if word in simple:
            lower.append(word)
            plain.append(word)
            first, inside_clause = False, True
            continue
        if word in _PUNCTUATION:
            lower.append(word)
            first, inside_clause = word != COMMA, False
            continue
        if word in _ITS and not inside_clause and _is_doing(text.words, at, known):
            word = "it's"  # Its raining, what should I wear?
        said = remembered.get(word)
        if said is None:
            if word[0] == EXACT_MARK:
                plain.append(f"{EXACT_MARK}{text.exact[int(word[1:])]}{EXACT_MARK}")
                lower.append(word)
                first = False
                continue
            said = known.remember_said(word, _said(word, known))
            if (
                said.spoken == said.as_written == (word,)
                and said.plain == word
                and not (said.spelling or word in polite or word in _ITS)
            ):
                known.remember_simple(word)
        small, spoken, as_written, letters, capital, shouted, spelling = said
        if capital:
            inside = capitals[small] = not first or capitals.get(small, False) or shouted
            if inside:
                spoken = as_written
        elif capitals.get(small):
            spoken = as_written
        if not word.isascii() and small.isascii():
            written, behind = word.lower(), lower[-1] if lower else ""
            if small not in known.letters:
                marked.append(written)
            is_name = capital and capitals[small] and known.language != "de"
            if not (is_name or accents.may_go(written, known.language, behind, is_word=known.is_known(small))):
                accented.append(written)
        if spelling:
            spellings[small] = spelling
        if letters:
            plain.append(letters)
        if len(spoken) == 1:
            if capital and inside_clause and not shouted and spoken[0] in courteous:
                lower.append(f"{spoken[0]}{_TITLED}")
            elif (
                spoken[0] not in polite or (lower and lower[-1] in kept_after) or _is_said(lower, text.words, at, known)
            ):
                lower.append(spoken[0])
        elif small.endswith("'d") and at + 1 < len(text.words) and text.words[at + 1].lower() in _HAD:
            lower.extend((small[:-2], "had"))
        else:
            lower.extend(part for part in spoken if part not in polite)
        first, inside_clause = False, True
    digest = hashlib.blake2b(" ".join(plain).encode(errors="surrogatepass"), digest_size=16).digest()
    return Spoken(
        _aim(_phrases(known.courtesy.taken_off(lower), known)),
        capitals,
        spellings,
        digest,
        tuple(accented),
        tuple(marked),
    )


def _is_doing(words: list[str], at: int, known: Lexicon) -> bool:
    return at + 1 < len(words) and known.word(words[at + 1]).form == GERUND


def _is_said(before: list[str], words: list[str], at: int, known: Lexicon) -> bool:
    """Whether a polite word is what is said: how do I say please in Dutch."""
    if at + 1 >= len(words) or words[at + 1] in _PUNCTUATION or known.speaking.isdisjoint(before):
        return False
    return known.speaking.intersection(_of_sentence(before)) != frozenset()


def _of_sentence(words: list[str]) -> list[str]:
    """The words of the last sentence."""
    for at in range(len(words) - 1, -1, -1):
        if words[at] == BREAK:
            return words[at + 1 :]
    return words


def _said(word: str, known: Lexicon) -> Said:
    keeps_case = _keeps_case(word)
    small = word if word.islower() or keeps_case else word.lower()
    if _BITS.fullmatch(word):
        small = f"{small.lower()}it"
    elif _BYTES_A_SECOND.fullmatch(word):
        small = f"{small} of bytes"
    if not small.isascii() and 1 < len(small) <= _LONGEST_FOLDED:
        small = fold(small, known.language)
    as_written = spoken = _spelled_out(small, known)
    if spoken == (small,) and small.isalpha():
        spoken = (known.corrected(small),)
    capital = not word.islower()
    return Said(
        small,
        spoken,
        as_written,
        word if keeps_case else known.american(word.lower().replace("'", "")),
        capital=capital,
        shouted=len(word) > 1 and word.isupper(),
        spelling=_spelling(word) if "." in word and any(map(str.isalpha, word)) else "",
    )


def _spelled_out(small: str, known: Lexicon) -> tuple[str, ...]:
    """The words of a contraction or a possessive; any other word alone."""
    said = known.contractions.get(small)
    if said is not None:
        return said
    if len(small) > 3 and small[-3:] in _CONTRACTED:
        return (small[:-3], _CONTRACTED[small[-3:]])
    if small.endswith("'s") and len(small) > 2:
        return (small[:-2], "'s")
    if small.endswith("s'"):
        return (small[:-1], "'s") if known.lemma(small[:-1])[1] == PLURAL else (small[:-1],)
    if known.language == "fr" and len(small) > 2 and small[1] == "'":
        return (small[:2], small[2:])
    return (small,)


def _keeps_case(word: str) -> bool:
    """Whether letter case is meaning: in -k and -K, +x and +X, in MB and Mb, in \\d and \\D."""
    return word[0] in "-+" or "\\" in word or _BITS.fullmatch(word) is not None


def _spelling(word: str) -> str:
    """Of a name of code, what its letter case says: foo.Bar is not foo.bar, but JSON.parse is json.parse."""
    first, *rest = word.split(".")
    parts = [first[:1].lower() + first[1:], *rest]
    return ".".join(part.lower() if part.isupper() else part for part in parts)


def _aim(words: list[str]) -> list[str]:
    """I must reset my password. How do I do that? → how to reset my password."""
    if _HOWTO not in words[3:] or words[0] not in ("i", "we"):
        return words
    at = words.index(_HOWTO)
    rest = words[at + 1 :]
    while rest and rest[-1] == BREAK:
        rest = rest[:-1]
    led = next((len(aim) for aim in _AIMS if tuple(words[1 : 1 + len(aim)]) == aim), 0)
    aim = words[1 + led : at - 1]
    if not led or not aim or words[at - 1] not in _PUNCTUATION or tuple(rest) not in _IT or BREAK in aim:
        return words
    return [_HOWTO, *aim, BREAK]


def _phrases(words: list[str], known: Lexicon) -> list[str]:
    """Replace known phrases, the longest first; twice, because one may show another ("please tell me how do I")."""
    for _ in range(2):
        replaced = _replaced(words, known)
        if replaced is None:
            break
        words = replaced
    return words


def _replaced(words: list[str], known: Lexicon) -> list[str] | None:
    """The words with their phrases replaced; None if there are none."""
    leading, noticed, anywhere = known.leading, known.noticed, known.noticed_anywhere
    out: list[str] = []
    said: tuple[str, ...] = ()
    at, size, changed = 0, len(words), False
    for spot in [place for place, word in enumerate(words) if word in noticed]:
        if spot < at:
            continue  # It is in a phrase that was replaced.
        word = words[spot]
        found = noticed[word]
        following = found.get(words[spot + 1]) if spot + 1 < size else None
        if not following and word not in anywhere:
            continue
        alone = found.get("", ())
        out.extend(words[at:spot])
        at = spot
        if word in leading and (not out or out[-1] in (BREAK, COLON)):
            at, changed = at + 1, True
            while at < size and words[at] == COMMA:
                at += 1
            continue
        length = 0
        for phrase, becomes in (*following, *alone) if following else alone:
            if len(phrase) != length:
                length = len(phrase)
                said = tuple(words[at : at + length])
            if said == phrase and (
                _is_general(phrase, words, at + length)
                if becomes == _GENERAL
                else becomes or _says_nothing(phrase, words, at, out, known)
            ):
                out.extend(becomes)
                at, changed = at + length, True
                break
        else:
            if word in _PAUSES and (not out or out[-1] in (BREAK, COLON)):
                at, changed = at + 1, True
    if not changed:
        return None
    out.extend(words[at:])
    return out


def _is_general(phrase: tuple[str, ...], words: list[str], end: int) -> bool:
    """Whether "how do you" asks how anybody does; not in: how do you use my data, how do you feel."""
    if "you" not in phrase:
        return True
    rest = words[end:]
    if BREAK in rest:
        rest = rest[: rest.index(BREAK)]
    return _PERSONAL.isdisjoint(rest) and _STATES.isdisjoint(rest[:1])


def _says_nothing(phrase: tuple[str, ...], words: list[str], at: int, before: list[str], known: Lexicon) -> bool:
    if phrase in known.edges:
        return _at_edge(words, at, len(phrase), before, known)
    return not _is_said(before, words, at + len(phrase) - 1, known)


def _at_edge(words: list[str], at: int, length: int, before: list[str], known: Lexicon) -> bool:
    """Whether a phrase stands where a clause starts or ends, and is not what is said there."""
    end = at + length
    if not before or before[-1] == BREAK:
        return True
    if before[-1] in _PUNCTUATION:
        return before[-1] == COMMA or known.named_after.isdisjoint(before)  # How do I say in French: thank you?
    return before[-1] not in known.named_after and (end == len(words) or words[end] in _PUNCTUATION)
